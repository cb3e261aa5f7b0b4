//! Real captures. tcpdump writes a pcap file, which is counted with the filters that everybody knows.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::namespace::Namespace;

/// How long tcpdump may take to start, to catch up or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Statistics without a change after which nothing is to come any more.
const STABLE: u32 = 50;

/// A running capture; ended when dropped.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    messages: Receiver<String>,
    file: PathBuf,
}

impl Capture {
    pub(super) fn start(
        namespace: &Namespace,
        interface: &str,
        filter: &str,
        file: &Path,
    ) -> Result<Capture> {
        // Each packet is handed over and written at once.
        let at_once = ["--immediate-mode", "-U"];
        Capture::start_with(namespace, interface, filter, file, &at_once)
    }

    /// The same, with other arguments for tcpdump about the way in which it takes packets.
    pub(super) fn start_with(
        namespace: &Namespace,
        interface: &str,
        filter: &str,
        file: &Path,
        arguments: &[&str],
    ) -> Result<Capture> {
        let mut command = namespace.command("tcpdump");
        command
            // 16 MiB of room for bursts; root stays root, to write the file anywhere.
            .args(["-i", interface, "-B", "16384"])
            .args(["-Z", "root", "-n", "-w"])
            .arg(file)
            .args(arguments)
            .args((!filter.is_empty()).then_some(filter))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut tcpdump = command.spawn().context("cannot run tcpdump")?;
        let stderr = tcpdump
            .stderr
            .take()
            .context("tcpdump has no standard error")?;
        let (sender, messages) = mpsc::channel();
        let mut capture = Capture {
            tcpdump,
            messages,
            file: file.to_owned(),
        };
        // Ends with tcpdump.
        thread::Builder::new()
            .name("tcpdump-messages".to_owned())
            .spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })?;
        capture.wait_for_message("listening on")?;
        Ok(capture)
    }

    /// Ends the capture when every packet that was on the wire until now is in the file.
    ///
    /// # Errors
    /// When the kernel had to drop packets, since a count would be wrong, or tcpdump does not end.
    pub fn finish(mut self) -> Result<CaptureFile> {
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut unchanged) = ([0; 3], 0);
        loop {
            // One line: "tcpdump: 12 packets captured, 12 packets received by filter, 0 packets dropped by kernel"; or "1 packet".
            self.signal(Signal::SIGUSR1)?;
            let line = self.wait_for_message(" captured")?;
            let [captured, received, dropped] = parse_statistics(&line)
                .with_context(|| format!("tcpdump's statistics are not understood: {line}"))?;
            ensure!(dropped == 0, "the kernel dropped captured packets: {line}");
            unchanged = match last == [captured, received, dropped] {
                true => unchanged + 1,
                false => 0,
            };
            last = [captured, received, dropped];
            // What came before libpcap had set its filter is among the received, but was thrown away (`set_kernel_filter`
            // in pcap-linux.c). tcpdump looks for packets each time that it tells its numbers: what is there it has seen.
            if captured >= received || unchanged >= STABLE {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "tcpdump does not catch up: {line}"
            );
            thread::sleep(Duration::from_millis(2));
        }
        self.signal(Signal::SIGINT)?;
        let status = self.tcpdump.wait()?;
        ensure!(status.success(), "tcpdump: {status}");
        Ok(CaptureFile {
            file: self.file.clone(),
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.tcpdump.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to tcpdump"))
    }

    fn wait_for_message(&mut self, part: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(line) if line.contains(part) => return Ok(line),
                Ok(line) => seen.push(line),
                Err(_) => bail!("tcpdump does not say `{part}`, but: {seen:?}"),
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.tcpdump.kill().ok();
        self.tcpdump.wait().ok();
    }
}

/// The three numbers of tcpdump's answer to SIGUSR1: captured, received by the filter, dropped by the kernel.
fn parse_statistics(line: &str) -> Option<[u64; 3]> {
    let numbers: Vec<u64> = line
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.first_chunk().copied()
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct CaptureFile {
    file: PathBuf,
}

impl CaptureFile {
    /// The pcap file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Number of captured packets that match a filter of tcpdump's; empty: all. A GSO super-packet is one.
    ///
    /// # Errors
    /// When the file cannot be read or the filter is wrong.
    pub fn count(&self, filter: &str) -> Result<usize> {
        Ok(self.lines(filter)?.len())
    }

    /// Sum of their lengths on the wire in bytes, link-layer header included.
    ///
    /// # Errors
    /// When the file cannot be read or the filter is wrong.
    pub fn bytes(&self, filter: &str) -> Result<u64> {
        let pcap = self.tcpdump(filter, &["-w", "-"])?;
        sum_of_lengths(&pcap).context("tcpdump wrote no pcap file")
    }

    /// Those packets in tcpdump's words, one line each, with microseconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be read or the filter is wrong.
    pub fn lines(&self, filter: &str) -> Result<Vec<String>> {
        let text = String::from_utf8(self.tcpdump(filter, &["-n", "-tt"])?)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn tcpdump(&self, filter: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new("tcpdump")
            .args(arguments)
            .arg("-r")
            .arg(&self.file)
            .args((!filter.is_empty()).then_some(filter))
            .output()
            .context("cannot run tcpdump")?;
        ensure!(
            output.status.success(),
            "tcpdump -r {} {filter}: {}",
            self.file.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }
}

/// Sum of the packets' original lengths (pcap-savefile(5): a header of 24 bytes; per packet 16 bytes with the captured and the original
/// length at 8 and 12, in the order of the machine that wrote them, and what was captured).
fn sum_of_lengths(pcap: &[u8]) -> Option<u64> {
    const HEADER: usize = 24;
    const PACKET_HEADER: usize = 16;
    let mut rest = pcap.get(HEADER..)?;
    let mut sum = 0;
    while !rest.is_empty() {
        let number = |at: usize| {
            let bytes = rest.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        let captured = usize::try_from(number(8)?).ok()?;
        sum += u64::from(number(12)?);
        rest = rest.get(PACKET_HEADER + captured..)?;
    }
    Some(sum)
}
