//! The client's end of the control socket, used by the verbs.

use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{Request, Response, socket_path};
use crate::failure::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer, in bytes. A status with 64 uplinks takes less than a tenth of it.
const MAX_RESPONSE: u64 = 1 << 20;

/// Sends `request` to the agent of `run_dir`, and returns its answer.
///
/// # Errors
///
/// [`Failure::NotRunning`] if there is no agent, [`Failure::ControlDenied`] if this user may not use its socket; otherwise an answer that
/// does not come in time or cannot be parsed.
pub async fn query(run_dir: &Path, request: &Request) -> anyhow::Result<Response> {
    let socket = socket_path(run_dir);
    timeout(PATIENCE, exchange(&socket, request))
        .await
        .with_context(|| {
            format!(
                "no answer within {} s at {}: is the agent stopped (kill -STOP), or overloaded?",
                PATIENCE.as_secs(),
                socket.display()
            )
        })?
}

/// Calls `report` with the last events of the agent of `run_dir`, when `follow`ing also with new ones as they occur, and with the number of
/// events that were lost; until there are no more or `report` returns false.
///
/// # Errors
///
/// As for [`query`]; when following, also if the agent closes the connection; and any error of `report`.
pub async fn events(
    run_dir: &Path,
    follow: bool,
    mut report: impl FnMut(Response) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let socket = socket_path(run_dir);
    let (mut reader, _writer) = request(&socket, &Request::Events { follow }).await?;
    loop {
        match read(&mut reader).await? {
            Response::Done(_) => return Ok(()),
            Response::Error(error) => bail!("the agent reports an error: {error}"),
            response => {
                if !report(response)? {
                    return Ok(());
                }
            }
        }
    }
}

async fn exchange(socket: &Path, request: &Request) -> anyhow::Result<Response> {
    let (mut reader, _writer) = self::request(socket, request).await?;
    read(&mut reader).await
}

/// Sends a request. Dropping the writer would mean to the agent that the client has left.
async fn request(
    socket: &Path,
    request: &Request,
) -> anyhow::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| connect_failure(socket, error))?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    writer
        .write_all(&line)
        .await
        .context("the agent closed the connection before the request")?;
    Ok((BufReader::new(reader), writer))
}

async fn read(reader: &mut BufReader<OwnedReadHalf>) -> anyhow::Result<Response> {
    let mut answer = Vec::new();
    reader
        .take(MAX_RESPONSE)
        .read_until(b'\n', &mut answer)
        .await
        .context("the agent closed the connection before its answer")?;
    if !answer.ends_with(b"\n") {
        bail!(
            "the agent closed the connection before the end of its answer: it has too many clients or is stopping"
        );
    }
    serde_json::from_slice(&answer)
        .context("this version does not understand the agent's answer: use the agent's own binary")
}

fn connect_failure(socket: &Path, error: io::Error) -> anyhow::Error {
    let socket = socket.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::NotRunning { socket }.into()
        }
        io::ErrorKind::PermissionDenied => Failure::ControlDenied { socket }.into(),
        _ => anyhow::Error::new(error).context(format!("cannot connect to {}", socket.display())),
    }
}
