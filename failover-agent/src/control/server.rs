//! The agent's end of the control socket.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, broadcast::error::RecvError, mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Events, Lock, Request, Response, socket_path};

/// Longest request, in bytes. Real requests take less than a hundred.
const MAX_REQUEST: u64 = 4096;

/// Greatest number of clients at a time.
const MAX_CLIENTS: usize = 32;

/// Greatest number of clients that follow events at a time; the rest is reserved for requests.
const MAX_FOLLOWERS: usize = 16;

/// How long a client may be silent or take to read its answer, and how long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where requests are sent, each with the channel for its answer.
pub type Requests = mpsc::Sender<(Request, oneshot::Sender<Response>)>;

/// The bound socket; removed when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds the control socket, mode 0660. The holder of the lock may replace a socket that a killed agent left behind.
    ///
    /// # Errors
    ///
    /// The socket cannot be created, or there is something other than a socket in its place.
    pub fn bind(lock: &Lock) -> anyhow::Result<Server> {
        let path = socket_path(lock.run_dir());
        // Created under another name and renamed, so that no client can connect before its mode is set, and a socket always exists.
        let new = new_socket_path(lock);
        remove_socket(&new)?;
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
            bail!("{} is not a socket: remove it", path.display());
        }
        let listener =
            UnixListener::bind(&new).with_context(|| format!("cannot bind {}", new.display()))?;
        fs::set_permissions(&new, Permissions::from_mode(0o660))
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot set up {}", path.display()))?;
        Ok(Server { listener, path })
    }

    /// Passes requests on, returns the answers and publishes `events`, until `requests` is closed. No client can disturb another: each has
    /// its own task, limits and timeouts.
    pub async fn serve(self, requests: Requests, events: Events) {
        let shared = Arc::new(Shared {
            events,
            followers: Semaphore::new(MAX_FOLLOWERS),
        });
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = clients.join_next() => continue,
                () = requests.closed() => return,
            };
            match accepted {
                Ok((stream, _)) if clients.len() < MAX_CLIENTS => {
                    clients.spawn(client(stream, requests.clone(), Arc::clone(&shared)));
                }
                // A dropped connection is answer enough: the client may try again.
                Ok(_) => debug!("control socket: too many clients, one was refused"),
                Err(error) => {
                    // Out of file descriptors, for example: that passes, and must not become a busy loop.
                    warn!(%error, "control socket: cannot accept");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = remove_socket(&self.path) {
            warn!(%error, "control socket: cannot remove it");
        }
    }
}

/// What all clients share.
struct Shared {
    events: Events,
    followers: Semaphore,
}

/// Ends for any reason on the client's side, which does not matter to the agent.
async fn client(stream: UnixStream, requests: Requests, shared: Arc<Shared>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Ok(Ok(Some(line))) = timeout(PATIENCE, read_line(&mut reader)).await {
        if !line.ends_with(b"\n") {
            let text = format!("a request is a line of up to {MAX_REQUEST} bytes");
            say(&mut writer, &Response::Error(text)).await.ok();
            return;
        }
        let said = match serde_json::from_slice(&line) {
            Ok(Request::Events { follow: true }) => {
                return follow(reader, &mut writer, &shared).await;
            }
            Ok(Request::Events { follow: false }) => list(&mut writer, &shared.events).await,
            Ok(request) => say(&mut writer, &answer(request, &requests).await).await,
            Err(error) => {
                say(
                    &mut writer,
                    &Response::Error(format!("not a request: {error}")),
                )
                .await
            }
        };
        if said.is_err() {
            return;
        }
    }
}

/// Sends the last events.
async fn list(writer: &mut OwnedWriteHalf, events: &Events) -> io::Result<()> {
    let (recent, _) = events.subscribe();
    for event in recent {
        say(writer, &Response::Event(Box::new(event))).await?;
    }
    say(writer, &Response::Done("no more events so far".to_owned())).await
}

/// Sends the last events and all new ones, until the client closes the connection. The client may read slowly.
async fn follow(
    mut reader: BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    shared: &Shared,
) {
    let Ok(_permit) = shared.followers.try_acquire() else {
        let text = format!("{MAX_FOLLOWERS} clients follow the events already");
        say(writer, &Response::Error(text)).await.ok();
        return;
    };
    let (recent, mut coming) = shared.events.subscribe();
    let sending = async {
        for event in recent {
            write_line(writer, &Response::Event(Box::new(event))).await?;
        }
        loop {
            let response = match coming.recv().await {
                Ok(event) => Response::Event(Box::new(event)),
                Err(RecvError::Lagged(lost)) => Response::Lost(lost),
                Err(RecvError::Closed) => return io::Result::Ok(()),
            };
            write_line(writer, &response).await?;
        }
    };
    let mut byte = [0];
    tokio::select! {
        _ = sending => {}
        // The client has closed its sending side: it has nothing more to ask.
        _ = reader.read(&mut byte) => {}
    }
}

/// The next line, without its line end if it is too long or the client closed the connection in its middle. `None`: the connection is
/// closed.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut limited = reader.take(MAX_REQUEST);
    limited.read_until(b'\n', &mut line).await?;
    Ok((!line.is_empty()).then_some(line))
}

async fn write_line(writer: &mut OwnedWriteHalf, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Writes a line; the client must read it within the timeout.
async fn say(writer: &mut OwnedWriteHalf, response: &Response) -> io::Result<()> {
    timeout(PATIENCE, write_line(writer, response)).await?
}

async fn answer(request: Request, requests: &Requests) -> Response {
    let (way_back, response) = oneshot::channel();
    let exchange = async {
        requests.send((request, way_back)).await.ok()?;
        response.await.ok()
    };
    match timeout(PATIENCE, exchange).await {
        Ok(Some(response)) => response,
        Ok(None) => Response::Error("the agent is stopping".to_owned()),
        Err(_) => Response::Error("the agent is busy: try again".to_owned()),
    }
}

/// The temporary name of the socket.
fn new_socket_path(lock: &Lock) -> PathBuf {
    lock.run_dir().join("control.new")
}

/// Removes the sockets that a killed agent left behind, and returns what was removed.
///
/// # Errors
///
/// One of them cannot be removed.
pub fn remove_sockets(lock: &Lock) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    for path in [socket_path(lock.run_dir()), new_socket_path(lock)] {
        if remove_socket(&path)? {
            done.push(format!("socket {}", path.display()));
        }
    }
    Ok(done)
}

/// Removes a socket; true if it existed.
fn remove_socket(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
