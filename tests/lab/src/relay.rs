//! An L3 link made of two tun devices, with a thread between them that can delay and lose packets. The kernel here has no netem.

use std::{
    collections::VecDeque,
    fs::File,
    io::{ErrorKind, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::PollFlags;

use super::{
    namespace::Namespace,
    sys,
    worker::{Stop, Worker, lock},
};

/// What the relay does to packets, in each direction. All zero: passes them on at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Delay in one direction; the round trip takes twice as much longer.
    pub delay: Duration,
    /// Greatest random addition to it. Packets stay in order.
    pub jitter: Duration,
    /// Share of packets lost in one direction, 0 to 100.
    pub loss_percent: u8,
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Passed on.
    pub passed: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Dropped since the queue was full or the other interface was down.
    pub dropped: u64,
}

/// Packets waiting in one direction; more are dropped, as any link does.
const QUEUE: usize = 4096;

/// Packets taken in a row from one side before the other has its turn.
const BATCH: usize = 64;

/// The relay of one L3 uplink.
#[derive(Debug)]
pub(super) struct Relay {
    shape: Arc<Mutex<Shape>>,
    counts: Arc<Mutex<RelayCounts>>,
    /// The host's tun device, for its carrier.
    host_side: OwnedFd,
    _worker: Worker,
}

impl Relay {
    /// Makes a tun device in each namespace and connects the two.
    pub(super) fn start(
        (host, host_name): (&Namespace, &str),
        (provider, provider_name): (&Namespace, &str),
    ) -> Result<Relay> {
        let open = |namespace: &Namespace, name: &str| {
            namespace.run(|| {
                sys::open_tun(name).with_context(|| format!("cannot make the tun device {name}"))
            })
        };
        let a = open(host, host_name)?;
        let b = open(provider, provider_name)?;
        let host_side = a.try_clone()?;
        let shape = Arc::new(Mutex::new(Shape::default()));
        let counts = Arc::new(Mutex::new(RelayCounts::default()));
        let mut link = Link {
            sides: [File::from(a), File::from(b)],
            queues: [Queue::default(), Queue::default()],
            random: Random(0x9e37_79b9_7f4a_7c15),
            shape: shape.clone(),
            counts: counts.clone(),
        };
        let worker = Worker::start(provider, "relay", move |stop| link.carry(&stop))?;
        Ok(Relay {
            shape,
            counts,
            host_side,
            _worker: worker,
        })
    }

    /// Sets what happens to packets that arrive at the relay from now on, and returns what was set before.
    pub(super) fn set_shape(&self, shape: Shape) -> Shape {
        std::mem::replace(&mut lock(&self.shape), shape)
    }

    /// What became of the packets so far, both directions together.
    pub(super) fn counts(&self) -> RelayCounts {
        *lock(&self.counts)
    }

    pub(super) fn set_host_carrier(&self, up: bool) -> Result<()> {
        sys::set_carrier(self.host_side.as_fd(), up).context("TUNSETCARRIER")
    }
}

/// A packet, and when it is to come out.
type Queue = VecDeque<(Instant, Vec<u8>)>;

struct Link {
    sides: [File; 2],
    /// `queues[i]` holds what came in at `sides[i]`.
    queues: [Queue; 2],
    random: Random,
    shape: Arc<Mutex<Shape>>,
    counts: Arc<Mutex<RelayCounts>>,
}

impl Link {
    fn carry(&mut self, stop: &Stop) {
        loop {
            let next = self.queues.iter().filter_map(|q| Some(q.front()?.0)).min();
            let timeout = next.map(|due| due.saturating_duration_since(Instant::now()));
            let [a, b] = &self.sides;
            let sides = [
                (a.as_fd(), PollFlags::POLLIN),
                (b.as_fd(), PollFlags::POLLIN),
            ];
            let Some(ready) = stop.wait(&sides, timeout) else {
                return;
            };
            for (side, ready) in ready.into_iter().enumerate() {
                if ready.contains(PollFlags::POLLIN) {
                    self.take_in(side);
                }
                self.give_out(side);
            }
        }
    }

    fn take_in(&mut self, side: usize) {
        let shape = *lock(&self.shape);
        let mut packet = [0; 65536];
        for _ in 0..BATCH {
            let length = match self.sides[side].read(&mut packet) {
                Ok(length) => length,
                // EIO: the interface is down.
                Err(_) => return,
            };
            if self.random.below(100) < u64::from(shape.loss_percent) {
                lock(&self.counts).lost += 1;
                continue;
            }
            let queue = &mut self.queues[side];
            if queue.len() >= QUEUE {
                lock(&self.counts).dropped += 1;
                continue;
            }
            let jitter_ns = u64::try_from(shape.jitter.as_nanos()).unwrap_or(u64::MAX);
            let jitter = Duration::from_nanos(self.random.below(jitter_ns.saturating_add(1)));
            let due = Instant::now() + shape.delay + jitter;
            let in_order = queue.back().map_or(due, |(last, _)| due.max(*last));
            queue.push_back((in_order, packet[..length].to_vec()));
        }
    }

    fn give_out(&mut self, side: usize) {
        let now = Instant::now();
        while let Some((due, packet)) = self.queues[side].front()
            && *due <= now
        {
            let written = self.sides[1 - side].write(packet);
            if matches!(&written, Err(error) if error.kind() == ErrorKind::Interrupted) {
                continue;
            }
            let mut counts = lock(&self.counts);
            match written {
                Ok(_) => counts.passed += 1,
                Err(_) => counts.dropped += 1,
            }
            drop(counts);
            self.queues[side].pop_front();
        }
    }
}

/// Marsaglia's xorshift64 with a fixed seed: losses vary, yet the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
