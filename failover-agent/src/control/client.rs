//! The other end of the control socket: what `status` uses.

use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{Request, Response, socket_path};
use crate::failure::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer, in bytes. A status with 64 uplinks has less than a tenth of it.
const MAX_RESPONSE: u64 = 1 << 20;

/// Asks the agent of `run_dir`.
///
/// # Errors
///
/// [`Failure::NotRunning`] if none is there, [`Failure::ControlDenied`] if it may not be asked; otherwise an answer that
/// does not come in time or makes no sense.
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

async fn exchange(socket: &Path, request: &Request) -> anyhow::Result<Response> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| connect_failure(socket, error))?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    writer
        .write_all(&line)
        .await
        .context("the agent hung up before the request")?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(reader.take(MAX_RESPONSE));
    reader
        .read_until(b'\n', &mut answer)
        .await
        .context("the agent hung up before its answer")?;
    if !answer.ends_with(b"\n") {
        bail!(
            "the agent hung up before the end of its answer: it has too many clients or is stopping"
        );
    }
    serde_json::from_slice(&answer)
        .context("the agent's answer makes no sense to this version: use the agent's own binary")
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
