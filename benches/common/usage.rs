//! The cost of a process so far, as the kernel counts it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::process::{mortal, spawn};

/// The cost of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// From its start to the moment that counts.
    pub(crate) wall: Duration,
    /// User and system, of all its threads.
    pub(crate) cpu: Duration,
    /// The most memory that it had resident, in kB.
    pub(crate) peak: u64,
}

/// User and system time of a process. `schedstat` counts nanoseconds where `stat` counts hundredths of a second; it is
/// kept by thread, so that threads which have ended are not in it.
pub(crate) fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    let times = times.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Duration::from_nanos(times.sum())
}

/// A line of `/proc/<pid>/status` in kB: `VmHWM` is the peak of resident memory, `VmRSS` its present size.
pub(crate) fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|present| present.strip_prefix(line)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// A process that is there.
pub(crate) fn so_far(pid: u32, since: Instant) -> Usage {
    Usage { wall: since.elapsed(), cpu: cpu(pid), peak: memory(pid, "VmHWM") }
}

/// Runs a program to its end. Reads its memory every two milliseconds, and its time at the end.
pub(crate) fn of_command(mut command: Command) -> Usage {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let mut child = spawn(command).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let pid = child.id();
    let mut usage = Usage::default();
    // A zombie's times can still be read, its memory cannot.
    while !is_zombie(pid) {
        usage.peak = usage.peak.max(memory(pid, "VmHWM"));
        std::thread::sleep(Duration::from_millis(2));
    }
    usage.wall = begun.elapsed();
    usage.cpu = cpu(pid);
    let status = child.wait().expect("a child of this process");
    assert!(status.success(), "{shown}: {status}");
    usage
}

fn is_zombie(pid: u32) -> bool {
    // The state follows the name, which is in brackets and may hold anything (proc_pid_stat(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// `ovn-nbctl`'s daemon. It leaves its parent, so a shell that waits for the end of its input ends it: when this value
/// is dropped, and when this process dies, too.
pub(crate) struct NbctlDaemon {
    keeper: Child,
    pid: u32,
    socket: PathBuf,
    begun: Instant,
}

impl NbctlDaemon {
    /// Starts one on a database, with its files in a directory that is there.
    pub(crate) fn start(remote: &str, dir: &std::path::Path) -> Self {
        const SCRIPT: &str = r#"
            ovn-nbctl --db="$1" --no-leader-only --detach --no-chdir --pidfile="$2" --log-file="$2.log" \
                -vconsole:off -vsyslog:off -u "$3" &
            read -r _ || true
            kill "$(cat "$2")"
            wait"#;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let file = |extension: &str| dir.join(format!("nbctl-{}.{extension}", &unique[..8]));
        let (pidfile, socket) = (file("pid"), file("ctl"));
        let mut command = mortal("sh");
        command.args(["-c", SCRIPT, "sh", remote]).arg(&pidfile).arg(&socket);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let begun = Instant::now();
        let keeper = spawn(command).expect("a shell");
        while !socket.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "ovn-nbctl --detach makes no socket");
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = fs::read_to_string(&pidfile).expect("its pid file").trim().parse().expect("a pid");
        Self { keeper, pid, socket, begun }
    }

    /// Runs a command in the daemon and waits for its end.
    pub(crate) fn run(&self, arguments: &[&str]) {
        let output = Command::new("ovn-nbctl").args(arguments).env("OVN_NB_DAEMON", &self.socket).output();
        let output = output.expect("ovn-nbctl runs");
        assert!(output.status.success(), "ovn-nbctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The cost of the daemon so far.
    pub(crate) fn usage(&self) -> Usage {
        so_far(self.pid, self.begun)
    }
}

impl Drop for NbctlDaemon {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
