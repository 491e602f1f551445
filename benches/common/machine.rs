//! The machine, and how busy it was.

/// How busy the machine was meanwhile, all of it: user, system and steal time.
pub(crate) struct Busy {
    busy: u64,
    total: u64,
}

impl Busy {
    /// From now on.
    pub(crate) fn begin() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
        let line = stat.lines().next().expect("the line of all processors");
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal (proc_stat(5))
        let total = ticks.iter().take(8).sum();
        Self { busy: total - ticks[3] - ticks[4], total }
    }

    /// Until now, in words.
    pub(crate) fn end(&self) -> String {
        let now = Self::begin();
        let percent = 100.0 * (now.busy - self.busy) as f64 / (now.total - self.total).max(1) as f64;
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_whitespace().next().unwrap_or("?").to_owned();
        format!("{cpus} processors, {percent:.0}% busy during the measurement, load average {load} at its end")
    }
}
