//! Watches that there is a default route at every instant, and where it leads.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// Asks the kernel for a route again and again, as every new connection does.
pub(crate) struct Poller {
    stop: Arc<AtomicBool>,
    lookups: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Vec<String>>>,
}

impl Poller {
    /// Whatever is not in `allowed` as source of a connection to `target` is a fault, and so is no route at all.
    pub(crate) fn start(
        target: &'static str,
        any: &'static str,
        allowed: &'static [&'static str],
    ) -> Poller {
        let stop = Arc::new(AtomicBool::new(false));
        let lookups = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (stop.clone(), lookups.clone());
        let thread = thread::spawn(move || {
            let mut faults = Vec::new();
            while !stopped.load(Ordering::Relaxed) && faults.len() < 10 {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                match socket
                    .connect((target, 9))
                    .and_then(|()| socket.local_addr())
                {
                    Ok(source) if allowed.contains(&source.ip().to_string().as_str()) => {}
                    other => faults.push(format!("{other:?}")),
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            faults
        });
        Poller {
            stop,
            lookups,
            thread: Some(thread),
        }
    }

    /// Checks what was found; returns how often it was looked.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let faults = self.thread.take().unwrap().join().unwrap();
        assert_eq!(faults, Vec::<String>::new());
        self.lookups.load(Ordering::Relaxed)
    }
}
