//! Many flows at a time, and by which uplink each of them leaves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use failover_lab::{ECHO_PORT, Lab, Node, TcpClient, wait_for};

use super::fixtures::SOON;

/// How long an answer is waited for before it is asked again.
const PATIENCE: Duration = Duration::from_millis(500);

/// UDP flows to one echo server, from different ports.
pub(crate) struct Flows {
    node: Node,
    flows: Vec<Flow>,
}

struct Flow {
    socket: UdpSocket,
    /// By which it left at first.
    uplink: Arc<str>,
    asked: u64,
}

impl Flows {
    /// Opens them, and finds out by which uplink each of them leaves.
    pub(crate) fn open(node: &Node, target: IpAddr, count: usize) -> Result<Flows> {
        let any: IpAddr = match target {
            IpAddr::V4(_) => [0; 4].into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // All at once, so that no two have the same port.
        let sockets: Vec<UdpSocket> = node.namespace().run(|| {
            let sockets = (0..count).map(|_| {
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(SocketAddr::new(target, ECHO_PORT))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            });
            sockets.collect()
        })?;
        let mut flows = Flows {
            node: node.clone(),
            flows: Vec::new(),
        };
        for socket in sockets {
            let mut flow = Flow {
                socket,
                uplink: "".into(),
                asked: 0,
            };
            flow.uplink = flow.ask(node)?;
            flows.flows.push(flow);
        }
        Ok(flows)
    }

    /// How many leave by each uplink.
    pub(crate) fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for flow in &self.flows {
            *shares.entry(flow.uplink.to_string()).or_default() += 1;
        }
        shares
    }

    /// Only those that leave by these uplinks; there must be some by each.
    pub(crate) fn only(mut self, uplinks: &[&str]) -> Flows {
        self.flows.retain(|flow| uplinks.contains(&&*flow.uplink));
        let shares = self.shares();
        assert_eq!(Vec::from_iter(shares.keys()), uplinks, "{shares:?}");
        self
    }

    /// Checks that each of them still leaves by the uplink by which it left at first.
    pub(crate) fn ensure_put(&mut self) -> Result<()> {
        for flow in &mut self.flows {
            let (at_first, now) = (flow.uplink.clone(), flow.ask(&self.node)?);
            ensure!(
                at_first == now,
                "{:?} went from {at_first} to {now}",
                flow.socket
            );
        }
        Ok(())
    }

    /// Checks that all of them leave by this uplink now.
    pub(crate) fn ensure_all_by(&mut self, uplink: &str) -> Result<()> {
        for flow in &mut self.flows {
            let now = flow.ask(&self.node)?;
            ensure!(&*now == uplink, "{:?} is on {now}", flow.socket);
        }
        Ok(())
    }
}

impl Flow {
    /// Asks the server where it sees us. An answer to an earlier question is none.
    fn ask(&mut self, node: &Node) -> Result<Arc<str>> {
        let begun = Instant::now();
        self.asked += 1;
        let mut question = [0; 12];
        question[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        question[4..].copy_from_slice(&self.asked.to_be_bytes());
        let mut last = None;
        while begun.elapsed() < SOON {
            // ICMP that an earlier datagram has brought on is an answer to that.
            if let Err(error) = self.socket.send(&question) {
                last = Some(error);
                continue;
            }
            let mut answer = [0; 64];
            while let Ok(length) = self.socket.recv(&mut answer) {
                if length >= 28 && answer[..12] == question {
                    let mut source = [0; 16];
                    source.copy_from_slice(&answer[12..28]);
                    let source = Ipv6Addr::from(source).to_canonical();
                    return node
                        .uplink_of(source)
                        .with_context(|| format!("{source} is no uplink's"));
                }
            }
        }
        bail!("no answer to {:?}, last error {last:?}", self.socket)
    }
}

/// A TCP connection that sends every 10 ms and leaves by this uplink.
pub(crate) fn connect_by(
    lab: &Lab,
    node: &Node,
    target: IpAddr,
    uplink: &str,
) -> Result<TcpClient> {
    // With a share of a quarter it takes 4 on the average.
    for _ in 0..100 {
        let before = lab.servers().connections().len();
        let connection = node.tcp_stream(target, Duration::from_millis(10))?;
        let accepted = wait_for("the connection is accepted", SOON, || {
            let connections = lab.servers().connections();
            connections.get(before).cloned().ok_or("it is not")
        })?;
        if accepted.uplink.as_deref() == Some(uplink) {
            return Ok(connection);
        }
    }
    bail!("no connection of 100 leaves by {uplink}")
}
