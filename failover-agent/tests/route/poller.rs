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
    switches: Arc<AtomicU64>,
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
        let switches = Arc::new(AtomicU64::new(0));
        let (stopped, counted, switched) = (stop.clone(), lookups.clone(), switches.clone());
        let thread = thread::spawn(move || {
            let mut faults = Vec::new();
            while !stopped.load(Ordering::Relaxed) && faults.len() < 10 {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                let before = switched.load(Ordering::SeqCst);
                let found = socket
                    .connect((target, 9))
                    .and_then(|()| socket.local_addr());
                match found {
                    Ok(source) if allowed.contains(&source.ip().to_string().as_str()) => {}
                    Ok(_) if switched.load(Ordering::SeqCst) > before + 1 => continue,
                    other => faults.push(format!("{other:?}")),
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            faults
        });
        Poller {
            stop,
            lookups,
            switches,
            thread: Some(thread),
        }
    }

    /// A switch of the target's family begins. A lookup that lasts longer than a whole switch may end at a route that was never the best: where the
    /// host of a virtual machine leaves a processor standing in its middle, it goes on at a route that is gone by then, past others that have
    /// gone since (`fib_table_lookup` in `net/ipv4/fib_trie.c` skips them). No route at all is a fault there, too.
    pub(crate) fn switching(&self) {
        self.switches.fetch_add(1, Ordering::SeqCst);
    }

    /// Checks what was found; returns how often it was looked.
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let faults = self.thread.take().unwrap().join().unwrap();
        assert_eq!(faults, Vec::<String>::new());
        self.lookups.load(Ordering::Relaxed)
    }
}
