//! What a tracer looks for: counts the calls of a phase, and says which one is to fail.

use std::{collections::HashMap, sync::Mutex, thread, time::Instant};

use failover_lab::lock;

use super::kind::{Fault, HANG, Kind};

/// One call that is to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Name of the call's kind.
    pub(super) kind: String,
    /// Which of them in the phase, from 1.
    pub(super) occurrence: usize,
    pub(super) fault: Fault,
}

/// How often a kind was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) count: usize,
}

/// What happened in a phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// In the order of first appearance.
    pub(super) calls: Vec<Seen>,
    /// When the order was carried out.
    pub(super) injected: Option<Instant>,
    /// When what hangs goes on.
    pub(super) hangs_until: Option<Instant>,
}

impl Record {
    /// Until then a disk does not answer, and a stop says so.
    pub(super) fn wait_for_the_end_of_a_hang(&self) {
        if let Some(end) = self.hangs_until {
            thread::sleep(end.saturating_duration_since(Instant::now()));
        }
    }
}

/// Shared by a tracer and the thread that goes through the phase.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    on: bool,
    places: HashMap<String, usize>,
    record: Record,
    order: Option<Order>,
}

impl Watch {
    /// A phase begins.
    pub(super) fn begin(&self, order: Option<&Order>) {
        *lock(&self.0) = State {
            on: true,
            order: order.cloned(),
            ..State::default()
        };
    }

    /// The phase is over: what was seen in it.
    pub(super) fn end(&self) -> Record {
        std::mem::take(&mut *lock(&self.0)).record
    }

    /// When the order was carried out.
    pub(super) fn injected(&self) -> Option<Instant> {
        lock(&self.0).record.injected
    }

    /// Counts a call, and returns how it is to fail, if it is.
    pub(super) fn call(&self, kind: &Kind) -> Option<Fault> {
        let mut state = lock(&self.0);
        let State {
            on,
            places,
            record,
            order,
        } = &mut *state;
        if !*on {
            return None;
        }
        let calls = &mut record.calls;
        let place = *places.entry(kind.name.clone()).or_insert_with(|| {
            calls.push(Seen {
                kind: kind.clone(),
                count: 0,
            });
            calls.len() - 1
        });
        calls[place].count += 1;
        let order = order.as_ref()?;
        if order.kind != kind.name || order.occurrence != calls[place].count {
            return None;
        }
        let now = Instant::now();
        record.injected = Some(now);
        record.hangs_until = (order.fault == Fault::Hang).then(|| now + HANG);
        Some(order.fault)
    }
}
