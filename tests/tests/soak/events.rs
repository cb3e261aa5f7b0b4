//! The events of a soak run.

use failover_policy::Family;

/// One thing that happens. Uplinks are numbered as the laboratory has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An uplink fails.
    Break(usize, Break),
    /// It works again.
    Repair(usize),
    /// An uplink's carrier goes and comes, before the agent can look.
    Flap(usize),
    /// Another program removes what is the agent's.
    Remove(Loss),
    /// A DHCP client or an administrator puts in a default route that beats the agent's.
    Preempt(usize, Family),
    /// An uplink gets another address beside its own, or loses it.
    SecondAddress(usize),
    /// The configuration has another order and other tables, and is taken over.
    Reload,
    /// The agent executes its program again.
    Restart,
    /// The agent is killed, and started again.
    Crash,
    /// The agent is stopped, and started again.
    StopAndStart,
    /// The administrator chooses an uplink.
    Switch(usize),
    /// The administrator ends that choice, and a drill with it.
    Auto,
    /// An uplink is treated as Down.
    Drill(usize),
    /// The agent does not run for so many milliseconds, or nearly not.
    Pause(Pause, u64),
    /// A VPN's default route comes or goes, with one of the agent's metrics.
    Vpn(Family, u32),
    /// A default route that lets nothing through comes or goes, behind the agent's active one.
    KillSwitch(Family, u32),
    /// The state of the disk that holds the agent's state changes.
    Disk(Disk),
    /// The reader of the agent's log stops reading, or goes on.
    Reader,
    /// A rule set overwrites the marks of what leaves, or does not any more.
    Marks,
    /// The time of day is set, to so many seconds ahead of the right one.
    Clock(i64),
}

/// Ways not to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    Stopped,
    /// It runs for a moment now and then.
    Starved,
}

/// What becomes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Full,
    ReadOnly,
    /// It does not answer.
    Frozen,
    /// It works again.
    Fine,
}

impl Disk {
    pub(crate) const ALL: [Disk; 4] = [Disk::Full, Disk::ReadOnly, Disk::Frozen, Disk::Fine];
}

/// Ways to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// The provider loses everything.
    Blackhole,
    /// The provider says that the targets cannot be reached.
    Unreachable,
    /// No host has the gateway's address.
    GatewayGone,
    /// The cable is out.
    Carrier,
    /// The administrator sets the interface down.
    SetDown,
    /// It has lost its addresses.
    LeaseOver,
    /// The interface is gone.
    Unplug,
    /// It has another name.
    Rename,
    /// It is in another network namespace.
    MoveAway,
}

impl Break {
    pub(crate) const ALL: [Break; 9] = [
        Break::Blackhole,
        Break::Unreachable,
        Break::GatewayGone,
        Break::Carrier,
        Break::SetDown,
        Break::Unplug,
        Break::LeaseOver,
        Break::Rename,
        Break::MoveAway,
    ];

    /// Whether a link without a gateway can fail like that.
    pub(crate) fn suits_a_tunnel(self) -> bool {
        !matches!(self, Break::GatewayGone | Break::Unplug | Break::MoveAway)
    }
}

/// What of the agent's is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its default routes.
    Routes(Family),
    /// Its rules.
    Rules(Family),
    /// An uplink's routing table.
    Table(usize),
}
