//! The path of log lines to standard error: a bounded queue and a thread that writes.
//!
//! Nothing waits for the reader: a line that does not fit into the queue, or cannot be written (`EPIPE`, `ENOSPC`, `EIO`), is counted as
//! lost. Once lines can be written again, one of them reports how many are missing.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    os::fd::AsFd,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, SigmaskHow},
    unistd::write,
};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait: some seconds of the busiest log.
const MAX_BYTES: usize = 256 * 1024;

/// Stack size of the writing thread, which formats a line now and then.
const STACK: usize = 256 * 1024;

thread_local! {
    /// Whether this is the thread that writes. Its own lines have room in any queue: a report of lost lines that was lost itself would take
    /// their number along. They are few, since each follows a line that has just left the queue.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Lines on their way to a descriptor.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when there is something to write.
    filled: Condvar,
    /// Notified when everything is written.
    drained: Condvar,
}

#[derive(Debug)]
struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Whether the writer has taken a line and is still writing it.
    writing: bool,
    /// Lost lines that were not reported yet.
    untold: u64,
    /// All lines that were lost.
    lost: u64,
    /// When the writer must call its `wake`.
    wake: Option<Instant>,
}

/// The writer's next task.
enum Task {
    Write(Box<[u8]>),
    Wake,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Queue {
            waiting: Mutex::new(Waiting {
                lines: VecDeque::new(),
                bytes: 0,
                writing: false,
                untold: 0,
                lost: 0,
                wake: None,
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    /// Adds a line, or counts it as lost if there is no room. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        // A line that is longer than the whole queue fits into an empty one.
        let full = !waiting.lines.is_empty() && waiting.bytes + line.len() > MAX_BYTES;
        if full && !IS_WRITER.get() {
            waiting.lose();
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.into());
        drop(waiting);
        self.filled.notify_one();
    }

    /// Makes the writer call its `wake` at `due`, or earlier.
    pub(super) fn wake_at(&self, due: Instant) {
        let mut waiting = self.lock();
        waiting.wake = Some(waiting.wake.map_or(due, |before| before.min(due)));
        drop(waiting);
        self.filled.notify_one();
    }

    /// How many lines were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Writes the waiting lines from this thread; used when the writing thread does not exist.
    pub(super) fn write_here(&self, descriptor: impl AsFd) {
        let lines = std::mem::take(&mut self.lock().lines);
        for line in lines {
            // An error here cannot be reported anywhere.
            write_all(&descriptor, &line).ok();
        }
    }

    /// Waits until everything is written; with a `bound`, at most that long. Returns whether everything was written.
    pub(super) fn flush(&self, bound: Option<Duration>) -> bool {
        let deadline = bound.map(|bound| Instant::now() + bound);
        let mut waiting = self.lock();
        while waiting.writing || !waiting.lines.is_empty() {
            let Some(deadline) = deadline else {
                let woken = self.drained.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.drained.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Starts the thread that writes to `descriptor` for as long as the process lives. It calls `missing` with the number of lost lines
    /// after a line has got through again, and `wake` when that is due.
    ///
    /// # Errors
    ///
    /// The kernel refuses to create a thread.
    pub(super) fn start(
        &'static self,
        descriptor: impl AsFd + Send + 'static,
        missing: impl Fn(u64) + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            IS_WRITER.set(true);
            let mut torn = false;
            loop {
                let line = match self.next() {
                    Task::Wake => {
                        wake();
                        continue;
                    }
                    Task::Write(line) => line,
                };
                if torn && write_all(&descriptor, b"\n").is_ok() {
                    torn = false;
                }
                match write_all(&descriptor, &line) {
                    Ok(()) => {
                        let untold = std::mem::take(&mut self.lock().untold);
                        if untold > 0 {
                            missing(untold);
                        }
                    }
                    Err(begun) => {
                        torn |= begun;
                        self.lock().lose();
                    }
                }
            }
        };
        // Signals are for the threads that handle them, and during a restart for the new program.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let thread = thread::Builder::new().name("log".to_owned());
        let started = thread.stack_size(STACK).spawn(work);
        before.thread_set_mask()?;
        started.map(drop)
    }

    fn next(&self) -> Task {
        let mut waiting = self.lock();
        waiting.writing = false;
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.writing = true;
                return Task::Write(line);
            }
            let left = waiting
                .wake
                .map(|due| due.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                waiting.wake = None;
                return Task::Wake;
            }
            self.drained.notify_all();
            waiting = match left {
                Some(left) => {
                    let woken = self.filled.wait_timeout(waiting, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.filled.wait(waiting);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn lose(&mut self) {
        self.untold += 1;
        self.lost += 1;
    }
}

/// Writes all bytes, however long that takes. On failure: whether a part of them was written.
fn write_all(descriptor: &impl AsFd, bytes: &[u8]) -> Result<(), bool> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match write(descriptor, rest) {
            Ok(written) => rest = &rest[written.min(rest.len())..],
            Err(Errno::EINTR) => {}
            // A descriptor that the parent process shares with us and has made non-blocking.
            Err(Errno::EAGAIN) => {
                let mut room = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
                // The next write reports what went wrong.
                poll(&mut room, PollTimeout::NONE).ok();
            }
            Err(_) => return Err(rest.len() < bytes.len()),
        }
    }
    Ok(())
}

/// Makes each write one line in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines(pub(super) &'static Queue);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead as _, BufReader, Read as _},
        os::unix::{fs::OpenOptionsExt as _, net::UnixStream},
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn queue() -> &'static Queue {
        Box::leak(Box::new(Queue::new()))
    }

    fn quiet(_: u64) {}

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_time() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = queue();
        let missing = move |lost| queue.push(format!("{lost} lost\n").as_bytes());
        queue.start(writer, missing, || {}).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let (begun, lines) = (Instant::now(), 1000);
        for _ in 0..lines {
            queue.push(&line);
        }
        assert!(begun.elapsed() < SOON);
        assert!(!queue.flush(Some(Duration::from_millis(20))));
        let lost = queue.lost();
        assert!(lost > lines / 2, "{lost}");
        // Once the reader reads again, it gets what waited, and how many lines are missing.
        let (whole, reported) = read_all(BufReader::new(reader), lines);
        assert_eq!((whole, reported), (lines - lost, lost));
        assert!(queue.flush(Some(SOON)));
        assert_eq!(queue.lost(), lost);
    }

    /// Reads until `lines` are there or reported as lost; how many are.
    fn read_all(reader: BufReader<io::PipeReader>, lines: u64) -> (u64, u64) {
        let (mut whole, mut reported) = (0, 0);
        let mut text = reader.lines().map(|line| line.unwrap());
        while whole + reported < lines {
            let line = text.next().unwrap();
            match line.strip_suffix(" lost") {
                Some(count) => reported += count.parse::<u64>().unwrap(),
                None => {
                    assert_eq!(line.len(), 1023);
                    whole += 1;
                }
            }
        }
        (whole, reported)
    }

    /// The report comes while other threads keep the queue full.
    #[test]
    fn a_report_of_lost_lines_is_not_lost_itself() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = queue();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let lines = 400;
        for _ in 0..lines {
            queue.push(&line);
        }
        // Nothing was written yet: the first report finds the queue full again.
        let refill = line.clone();
        let missing = move |lost| {
            queue.lock().lines.push_back(refill.as_slice().into());
            queue.lock().bytes += refill.len();
            queue.push(format!("{lost} lost\n").as_bytes());
        };
        let lost = queue.lost();
        assert!(lost > 0);
        queue.start(writer, missing, || {}).unwrap();
        // The line that has filled the queue again is there, too.
        let (whole, reported) = read_all(BufReader::new(reader), lines + 1);
        assert_eq!((whole, reported), (lines - lost + 1, lost));
        assert!(queue.flush(Some(SOON)));
        assert_eq!(queue.lost(), lost);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error_and_the_next_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let reader = || {
            let mut options = File::options();
            let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
            options.open(&path).unwrap()
        };
        let mut first = reader();
        let writer = File::options().write(true).open(&path).unwrap();
        let queue = queue();
        let missing = move |lost| queue.push(format!("{lost} lost\n").as_bytes());
        queue.start(writer, missing, || {}).unwrap();
        queue.push(b"one\n");
        assert!(queue.flush(Some(SOON)));
        assert_eq!(first.read(&mut [0; 64]).unwrap(), 4);
        drop(first);
        queue.push(b"two\n");
        queue.push(b"three\n");
        assert!(queue.flush(Some(SOON)));
        assert_eq!(queue.lost(), 2);
        let mut next = reader();
        queue.push(b"four\n");
        assert!(queue.flush(Some(SOON)));
        let mut text = [0; 64];
        let length = next.read(&mut text).unwrap();
        assert_eq!(text[..length], *b"four\n2 lost\n");
    }

    #[test]
    fn a_descriptor_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let queue = queue();
        queue.start(writer, quiet, || {}).unwrap();
        // One line is longer than the socket's buffer and the queue.
        let line = vec![b'y'; 2 * MAX_BYTES + (1 << 20)];
        queue.push(&line);
        assert!(!queue.flush(Some(Duration::from_millis(20))));
        let mut read = vec![0; line.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == line);
        assert!(queue.flush(Some(SOON)));
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn the_writer_is_woken_when_something_is_due() {
        let (_reader, writer) = io::pipe().unwrap();
        let queue = queue();
        let woken = Arc::new(AtomicU64::new(0));
        let wake = {
            let woken = Arc::clone(&woken);
            move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }
        };
        queue.start(writer, quiet, wake).unwrap();
        queue.wake_at(Instant::now() + Duration::from_millis(5));
        let begun = Instant::now();
        while woken.load(Ordering::SeqCst) == 0 && begun.elapsed() < SOON {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(woken.load(Ordering::SeqCst), 1);
    }
}
