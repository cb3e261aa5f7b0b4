//! The history of the default routes, change by change, from the kernel's notifications: unlike a poller it misses no instant.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{namespace::Namespace, snapshot::DefaultRoute, wait::wait_until, worker::lock};

/// How long `ip monitor` may take to start or to catch up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table that nobody uses, for routes that mark a point in the history.
const MARKER_TABLE: u32 = 9999;

/// Watches the default routes of one family in the main table, from now until the guard is finished; ended when dropped.
///
/// When an interface is set down the kernel takes its IPv4 routes without a word: such a time cannot be watched.
#[derive(Debug)]
pub struct RouteMonitor {
    ip: Child,
    namespace: Namespace,
    /// The option of `ip` that selects it.
    family: &'static str,
    before: Vec<DefaultRoute>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl RouteMonitor {
    pub(super) fn start(namespace: &Namespace, family: &'static str) -> Result<RouteMonitor> {
        let mut ip = namespace
            .command("ip")
            .args([family, "-oneline", "monitor", "route"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It reads the names of all namespaces, and complains of one that another laboratory is just making.
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run ip monitor")?;
        let stdout = ip
            .stdout
            .take()
            .context("ip monitor has no standard output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut monitor = RouteMonitor {
            ip,
            namespace: namespace.clone(),
            family,
            before: Vec::new(),
            lines: lines.clone(),
        };
        // Ends with `ip`.
        thread::Builder::new()
            .name("ip-monitor".to_owned())
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    lock(&lines).push(line);
                }
            })?;
        // It does not say when it begins to listen.
        wait_until("ip monitor listens", PATIENCE, || {
            monitor.mark().is_ok() && monitor.seen(1)
        })?;
        monitor.before = DefaultRoute::read(namespace, family)?;
        Ok(monitor)
    }

    /// Makes a change that shows up in the history and means nothing.
    fn mark(&self) -> Result<()> {
        let destination = match self.family {
            "-6" => "2001:db8:dead::1/128",
            _ => "192.0.2.254/32",
        };
        let marker = format!("unreachable {destination} table {MARKER_TABLE}");
        self.namespace
            .ip_batch(&format!("route add {marker}\nroute del {marker}"))
    }

    /// Whether at least so many markers have come.
    fn seen(&self, markers: usize) -> bool {
        self.markers() >= markers
    }

    fn markers(&self) -> usize {
        let table = format!("table {MARKER_TABLE} ");
        let lines = lock(&self.lines);
        let markers = lines.iter().filter(|line| line.contains(&table));
        markers.filter(|line| line.starts_with("Deleted")).count()
    }

    /// How many changes of default routes in the main table have been seen so far.
    pub fn changes(&self) -> usize {
        let lines = lock(&self.lines);
        let route = |line: &&String| parse(line.strip_prefix("Deleted ").unwrap_or(line)).is_some();
        lines.iter().filter(route).count()
    }

    /// Ends the watch when everything that has happened until now is known. Returns the interface of the best default route at
    /// the beginning and whenever that changed; `None` when there was no default route at all.
    ///
    /// # Errors
    /// When `ip monitor` does not catch up.
    pub fn finish(self) -> Result<Vec<Option<String>>> {
        let markers = self.markers();
        self.mark()?;
        wait_until("ip monitor has caught up", PATIENCE, || {
            self.seen(markers + 1)
        })?;
        let history = replay(&self.before, &lock(&self.lines));
        let now = DefaultRoute::read(&self.namespace, self.family)?;
        ensure!(
            history.last().cloned().flatten().as_deref()
                == now.first().map(|route| route.interface.as_str()),
            "the history {history:?} does not lead to {now:?}"
        );
        Ok(history)
    }
}

impl Drop for RouteMonitor {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.ip.kill().ok();
        self.ip.wait().ok();
    }
}

/// The best route's interface at the beginning and after each change.
fn replay(before: &[DefaultRoute], lines: &[String]) -> Vec<Option<String>> {
    // One owner never has two routes of one metric here, so that a replaced route, of which the kernel says only what it has become,
    // is found by its owner and metric.
    let mut routes: BTreeMap<(u32, String), String> = before
        .iter()
        .map(|route| {
            (
                (route.metric, route.protocol.clone()),
                route.interface.clone(),
            )
        })
        .collect();
    let best = |routes: &BTreeMap<_, String>| routes.values().next().cloned();
    let mut history = vec![best(&routes)];
    for line in lines {
        let (deleted, route) = match line.strip_prefix("Deleted ") {
            Some(route) => (true, route),
            None => (false, line.as_str()),
        };
        let Some((key, interface)) = parse(route) else {
            continue;
        };
        if !deleted {
            routes.insert(key, interface);
        } else if routes.get(&key) == Some(&interface) {
            routes.remove(&key);
        }
        history.push(best(&routes));
    }
    history.dedup();
    history
}

/// Metric, protocol and interface of a default route of the main table.
fn parse(route: &str) -> Option<((u32, String), String)> {
    let words: Vec<&str> = route.split_whitespace().collect();
    let after = |key: &str| {
        words
            .windows(2)
            .find_map(|pair| (pair[0] == key).then(|| pair[1]))
    };
    if words.first() != Some(&"default") || after("table").is_some() {
        return None;
    }
    let metric = after("metric").map_or(Some(0), |metric| metric.parse().ok())?;
    let protocol = after("proto").unwrap_or_default().to_owned();
    Some(((metric, protocol), after("dev")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &[&str]) -> Vec<Option<String>> {
        let before = DefaultRoute {
            interface: "cable".to_owned(),
            gateway: Some("10.64.1.1".to_owned()),
            metric: 100,
            protocol: "dhcp".to_owned(),
            source: None,
        };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        replay(&[before], &lines)
    }

    #[test]
    fn a_replaced_route_is_no_gap_and_a_gap_is_seen() {
        let some = |interface: &str| Some(interface.to_owned());
        let make_before_break = [
            "default via 10.64.2.1 dev lte proto 136 metric 50 ",
            "Deleted default via 10.64.1.1 dev cable proto dhcp src 10.64.1.2 metric 100 ",
            "default via 10.64.1.1 dev cable table 13600 proto 136 ",
            "default dev sat proto 136 scope link metric 50 ",
        ];
        let expected = [some("cable"), some("lte"), some("sat")];
        assert_eq!(history(&make_before_break), expected);
        let break_before_make = [make_before_break[1], make_before_break[0]];
        let expected = [some("cable"), None, some("lte")];
        assert_eq!(history(&break_before_make), expected);
    }
}
