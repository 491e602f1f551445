//! The metrics of the process, under the names that all Prometheus clients have for them. Linux has them in /proc.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// The unit of times in /proc/self/stat: Linux counts hundredths of a second for programs, whatever its own tick is
/// (proc_pid_stat(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Encodes the metrics of this process at each scrape.
#[derive(Debug)]
pub(crate) struct Process {
    /// The start of the process in seconds since 1970.
    started: Option<f64>,
    most_fds: Option<u64>,
}

/// The changing values.
#[derive(Debug, PartialEq)]
struct Sample {
    cpu_seconds: f64,
    resident: u64,
    virtual_: u64,
}

impl Process {
    /// The metrics of this process.
    pub(crate) fn new() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let booted = number_after(&read("/proc/stat"), "btime");
        let since_boot = ticks(&read("/proc/self/stat"), START_TIME);
        Self {
            started: booted.zip(since_boot).map(|(boot, start)| boot as f64 + start as f64 / TICKS_PER_SECOND),
            most_fds: number_after(&read("/proc/self/limits"), "Max open files"),
        }
    }
}

/// The index of a field of /proc/self/stat behind the name of the program: `utime`, `stime`, `starttime`.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

/// A time in /proc/self/stat. The name of the program is in brackets and may hold anything.
fn ticks(stat: &str, index: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split_whitespace().nth(index)?.parse().ok()
}

/// The first number of the line that begins with these words.
fn number_after(text: &str, words: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(words))?;
    rest.trim_start_matches(':').split_whitespace().next()?.parse().ok()
}

impl Sample {
    fn take() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        Self::read(&stat, &fs::read_to_string("/proc/self/status").ok()?)
    }

    fn read(stat: &str, status: &str) -> Option<Self> {
        let cpu = ticks(stat, USER_TIME)? + ticks(stat, SYSTEM_TIME)?;
        let bytes = |line: &str| number_after(status, line).map(|kilobytes| kilobytes * 1_024);
        let (resident, virtual_) = (bytes("VmRSS")?, bytes("VmSize")?);
        Some(Self { cpu_seconds: cpu as f64 / TICKS_PER_SECOND, resident, virtual_ })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        if let Some(Sample { cpu_seconds, resident, virtual_ }) = Sample::take() {
            let help = "User and system CPU time of the process.";
            let metric = encoder.encode_descriptor("process_cpu", help, seconds, MetricType::Counter)?;
            ConstCounter::new(cpu_seconds).encode(metric)?;
            let help = "Resident memory of the process.";
            let metric = encoder.encode_descriptor("process_resident_memory", help, bytes, MetricType::Gauge)?;
            ConstGauge::new(resident).encode(metric)?;
            let help = "Virtual memory of the process.";
            let metric = encoder.encode_descriptor("process_virtual_memory", help, bytes, MetricType::Gauge)?;
            ConstGauge::new(virtual_).encode(metric)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let help = "Open file descriptors of the process.";
            let metric = encoder.encode_descriptor("process_open_fds", help, None, MetricType::Gauge)?;
            // One is of the folder itself.
            ConstGauge::new((open.count() as u64).saturating_sub(1)).encode(metric)?;
        }
        if let Some(most) = self.most_fds {
            let help = "The limit for open file descriptors.";
            let metric = encoder.encode_descriptor("process_max_fds", help, None, MetricType::Gauge)?;
            ConstGauge::new(most).encode(metric)?;
        }
        if let Some(started) = self.started {
            let help = "The start of the process, in time since 1970.";
            let metric = encoder.encode_descriptor("process_start_time", help, seconds, MetricType::Gauge)?;
            ConstGauge::new(started).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 5 6 20 0 7 0 1234 9 10 11\n";
        let status = "Name:\ta\nVmPeak:\t  9 kB\nVmSize:\t  2000 kB\nVmRSS:\t  1000 kB\n";
        let sample = Sample { cpu_seconds: 3.0, resident: 1_024_000, virtual_: 2_048_000 };
        assert_eq!(Sample::read(stat, status), Some(sample));
        assert_eq!(ticks(stat, START_TIME), Some(1_234));
        let limits =
            "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1_024));
        assert_eq!(number_after("cpu 1\nbtime 1700000000\n", "btime"), Some(1_700_000_000));
        assert_eq!(number_after("Max open files unlimited\n", "Max open files"), None);
    }

    #[test]
    fn this_process_has_all_of_them() {
        let process = Process::new();
        let sample = Sample::take().expect("/proc is there");
        assert!(sample.resident > 1_000_000 && sample.virtual_ >= sample.resident, "{sample:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs_f64();
        assert!(process.started.is_some_and(|at| at <= now + 1.0 && at > now - 86_400.0 * 365.0), "{process:?}");
    }
}
