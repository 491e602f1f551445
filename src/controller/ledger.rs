//! The status of every VM, on the leader and on followers alike.
//!
//! ```text
//!   writer --record, release--> ledger --+--> reporter: Events and the annotation    (the leader's alone)
//!                                        +--> metrics: problems by reason             (the leader's alone)
//!                                        +--> any reader: the status of a VM
//!                                        +--> changed: the names of the VMs, while a task shows them
//! ```
//!
//! The statuses of most VMs follow from their rows and are read from the replica on request. Only the other statuses
//! are kept here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::mpsc;

use super::changed::Changed;
use super::metrics::{Metrics, ProblemsByReason};
use super::reporter::{Report, Subject};
use crate::contract::VmKey;
use crate::ovn::{LogicalSwitchPort, Northbound};
use crate::plan::{VmStatus, present};

/// The status of every VM. Clones share one ledger.
#[derive(Clone)]
pub struct Ledger {
    kept: Arc<RwLock<Kept>>,
    reports: mpsc::UnboundedSender<Report>,
    problems: ProblemsByReason,
    changed: Changed,
}

#[derive(Default)]
struct Kept {
    /// This process leads: it reports to owners, and counts for operators.
    leads: bool,
    /// The statuses that do not follow from the rows.
    statuses: HashMap<VmKey, Arc<VmStatus>>,
}

impl Ledger {
    /// Creates a ledger of a process that does not lead, before any decision.
    pub fn new(reports: mpsc::UnboundedSender<Report>, metrics: &Metrics) -> Self {
        Self { kept: Arc::default(), reports, problems: metrics.problems(), changed: Changed::default() }
    }

    /// Records that this process leads, or leads no longer.
    pub(super) fn lead(&self, leads: bool) {
        let mut kept = self.write();
        if std::mem::replace(&mut kept.leads, leads) == leads {
            return;
        }
        self.problems.clear();
        if leads {
            kept.statuses.values().for_each(|status| self.problems.add(status));
        } else {
            self.report(Report::Deposed);
        }
    }

    /// Records the status of a VM. It is reported to the owner on `subject`, if there is such an object.
    pub(super) fn record(&self, vm: &VmKey, subject: Option<Subject>, mut status: VmStatus) {
        // Reports wait for the API server, by the thousand in a storm.
        status.ports.shrink_to_fit();
        let leads = self.keep(vm, &status);
        if let Some(subject) = subject.filter(|_| leads) {
            self.report(Report::Status { subject, status });
        }
    }

    /// Records that the VM is gone, with its former ports.
    pub(super) fn release(&self, vm: &VmKey, ports: Vec<LogicalSwitchPort>) {
        if self.keep(vm, &VmStatus::default()) {
            self.report(Report::Released { vm: vm.clone(), ports });
        }
    }

    /// Keeps a status that does not follow from the rows. Returns true if this process leads.
    fn keep(&self, vm: &VmKey, status: &VmStatus) -> bool {
        let follows = status.follows_from_rows();
        {
            // The usual case: there is nothing to keep, and nothing was kept.
            let kept = self.read();
            if follows && !kept.statuses.contains_key(vm) {
                return kept.leads;
            }
        }
        let mut kept = self.write();
        let before = match follows {
            true => kept.statuses.remove(vm),
            false => kept.statuses.insert(vm.clone(), Arc::new(status.clone())),
        };
        if kept.leads {
            before.iter().for_each(|before| self.problems.remove(before));
            self.problems.add(status);
        }
        let leads = kept.leads;
        drop(kept);
        self.changed.note(vm);
        leads
    }

    /// The VMs whose ports or statuses have changed.
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// The VMs with a status that does not follow from the rows.
    pub fn kept(&self) -> Vec<VmKey> {
        self.read().statuses.keys().cloned().collect()
    }

    /// The statuses of these VMs that do not follow from the rows.
    pub fn kept_of<'v>(&self, vms: impl IntoIterator<Item = &'v VmKey>) -> Vec<Option<Arc<VmStatus>>> {
        let kept = self.read();
        vms.into_iter().map(|vm| kept.statuses.get(vm).cloned()).collect()
    }

    /// The number of problems in the statuses of all VMs, by the reason of the Event.
    pub fn problems(&self) -> BTreeMap<&'static str, usize> {
        let mut problems = BTreeMap::new();
        for problem in self.read().statuses.values().flat_map(|status| status.problems()) {
            *problems.entry(problem.reason()).or_default() += 1;
        }
        problems
    }

    /// Returns the status of a VM, with the replica of the decisions.
    pub fn status(&self, northbound: &Northbound, vm: &VmKey) -> VmStatus {
        let kept = self.read().statuses.get(vm).cloned();
        kept.map_or_else(|| present(northbound, vm), |status| VmStatus::clone(&status))
    }

    fn report(&self, report: Report) {
        // Without a reporter the process is ending.
        let _ = self.reports.send(report);
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubevirt::{Reported, Run, VmObjects};
    use crate::plan::{PortStatus, Problem};

    fn missing() -> Problem {
        Problem::SwitchNotFound("blue".into())
    }

    fn port(problems: usize) -> PortStatus {
        PortStatus { network: "default".into(), problems: vec![missing(); problems], ..PortStatus::default() }
    }

    fn status(problems: usize) -> VmStatus {
        VmStatus { ports: vec![port(problems)], ..VmStatus::default() }
    }

    fn counted(metrics: &Metrics) -> Option<usize> {
        let text = metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix("ovn_kubevirt_problems{reason=\"SwitchNotFound\"} "));
        line.map(|count| count.parse().expect("a number"))
    }

    #[test]
    fn each_problem_counts_until_it_is_over_in_the_process_that_leads() {
        let metrics = Metrics::default();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let ledger = Ledger::new(sender, &metrics);
        let [a, b] = ["a", "b"].map(|name| VmKey::new("n", name));
        ledger.record(&a, None, status(2));
        assert_eq!(counted(&metrics), None, "a follower does not count");
        ledger.lead(true);
        assert_eq!(counted(&metrics), Some(2), "earlier decisions count once this process leads");
        ledger.record(&b, None, VmStatus::of_problem(missing()));
        assert_eq!(counted(&metrics), Some(3));
        ledger.record(&a, None, status(1));
        ledger.release(&b, Vec::new());
        assert_eq!(counted(&metrics), Some(1));
        ledger.lead(false);
        assert_eq!(counted(&metrics), None);
        let northbound = Northbound::new("default");
        assert_eq!(ledger.status(&northbound, &a), status(1), "a follower has the status all the same");
        assert_eq!(ledger.status(&northbound, &b), VmStatus::default());
        assert!(matches!(reports.try_recv(), Ok(Report::Released { vm, .. }) if vm == b));
        assert!(matches!(reports.try_recv(), Ok(Report::Deposed)));
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn the_process_that_leads_reports_to_the_owner() {
        let (sender, mut reports) = mpsc::unbounded_channel();
        let ledger = Ledger::new(sender, &Metrics::default());
        let vm = VmKey::new("n", "a");
        let run = Run {
            uid: "u".into(),
            vm_uid: None,
            template: Err("not read here".into()),
            node: None,
            domain_ready_on: None,
            reported: Reported::default(),
        };
        let objects = VmObjects { run: Some(run), ..VmObjects::default() };
        ledger.record(&vm, Subject::of(&vm, &objects), status(1));
        assert!(reports.try_recv().is_err(), "a follower does not report");
        ledger.lead(true);
        ledger.record(&vm, Subject::of(&vm, &objects), status(1));
        assert!(matches!(reports.try_recv(), Ok(Report::Status { status, .. }) if status == self::status(1)));
    }
}
