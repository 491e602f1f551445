//! Reports to VM owners: the annotation `ovn-kubevirt.io/ports` on the VM, and Events for changes.
//!
//! ```text
//!   writer --Report--> differences --pace--> outbox -+--(at most once a second for a VM)--> send: Events, annotation
//!                          |                         |                                            |
//!                          +--> newest report -------+<-- refused: 1 to 10 minutes ---------------+
//!                                                           server away: all of them wait
//! ```
//!
//! Level-triggered as well: a report is the state of a VM's ports, and the difference from the last report makes the
//! Events. The annotation has the last report, so that a restart of this service repeats nothing. An annotation that
//! names another instance belongs to that instance (`news.rs`).
//!
//! The state of a VM is dropped with the VM, or when it is at rest and its pace is forgotten.

mod complaints;
mod entry;
mod news;
mod pace;
mod send;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::complaints::Complaints;
use self::entry::{Entry, compose};
use self::news::{Verdict, verdict};
use self::send::{Again, Annotation, Object, Outcome, Outgoing, send};
use crate::contract::{VmKey, keys};
use crate::kubevirt::{Reported, VmObjects};
use crate::ovn::LogicalSwitchPort;
use crate::plan::VmStatus;

pub use self::pace::PaceMetrics;

/// The number of VMs reported on at the same time.
const AT_ONCE: usize = 16;
/// The pause after a failed report, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// The pause after a refusal by the API server, unless there is another status to report.
const FIRST_REFUSED: Duration = Duration::from_secs(60);
const LAST_REFUSED: Duration = Duration::from_secs(600);
/// The pause of all reports while the API server is away, unless it names one itself.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// The number of tries for a deleted VM.
const TRIES_FOR_THE_GONE: u32 = 8;
/// The interval at which entries at rest are dropped.
const SWEEP: Duration = Duration::from_secs(60);

/// A report.
#[derive(Debug)]
pub enum Report {
    /// The status of a VM.
    Status {
        /// The object to report on.
        subject: Subject,
        /// The present status.
        status: VmStatus,
    },
    /// Another process leads, and reports from now on.
    Deposed,
    /// The ports of a deleted VM.
    Released {
        /// The VM.
        vm: VmKey,
        /// Its former ports.
        ports: Vec<LogicalSwitchPort>,
    },
}

/// The object that Events are about: the VM, or a bare VMI.
#[derive(Debug, Clone)]
pub struct Subject {
    object: Object,
    /// The annotation as the watch last saw it.
    seen: Reported,
}

impl Subject {
    /// The VM.
    pub fn vm(&self) -> &VmKey {
        &self.object.vm
    }

    /// `None` while only launcher pods are left: they are no object to report on.
    pub fn of(vm: &VmKey, objects: &VmObjects) -> Option<Self> {
        let (is_vm, uid, seen) = match (&objects.vm, &objects.run) {
            (Some(object), _) => (true, &object.uid, &object.reported),
            (None, Some(run)) => (false, &run.uid, &run.reported),
            (None, None) => return None,
        };
        Some(Self { object: Object { vm: vm.clone(), is_vm, uid: uid.clone() }, seen: seen.clone() })
    }

    /// The present annotation: ours, until the watch has seen an object as new as that.
    fn present<'a>(&'a self, written: Option<&'a Written>) -> &'a Reported {
        match written {
            Some(written) if self.has_not_seen(written) => &written.annotation,
            _ => &self.seen,
        }
    }

    fn has_not_seen(&self, written: &Written) -> bool {
        written.uid == self.object.uid && written.annotation.version > self.seen.version
    }
}

/// An annotation that we wrote.
#[derive(Debug, Clone)]
struct Written {
    uid: String,
    annotation: Reported,
}

/// Sends the newest report of each VM, in sequence for a VM, for some VMs in parallel.
pub struct Reporter {
    client: Client,
    /// The instance that owns the annotations.
    instance: String,
    reports: mpsc::UnboundedReceiver<Report>,
    vms: HashMap<VmKey, Entry>,
    due: BTreeSet<(Instant, VmKey)>,
    sending: JoinSet<Sent>,
    /// The end of the pause while the API server is away.
    pause: Option<Instant>,
    pauses: u32,
    complaints: Complaints,
    metrics: PaceMetrics,
}

struct Sent {
    vm: VmKey,
    report: Option<Box<(Subject, VmStatus)>>,
    /// The write of the annotation in this report.
    verdict: Verdict,
    outcome: Outcome,
}

impl Reporter {
    /// Creates a reporter.
    pub fn new(
        client: Client,
        instance: String,
        reports: mpsc::UnboundedReceiver<Report>,
        metrics: PaceMetrics,
    ) -> Self {
        Self {
            client,
            instance,
            reports,
            vms: HashMap::new(),
            due: BTreeSet::new(),
            sending: JoinSet::new(),
            pause: None,
            pauses: 0,
            complaints: Complaints::default(),
            metrics,
        }
    }

    /// Runs until all senders of reports are gone.
    pub async fn run(mut self) {
        let mut sweep = Instant::now() + SWEEP;
        loop {
            self.send_due();
            let next = self.next_due().into_iter().chain((!self.vms.is_empty()).then_some(sweep)).min();
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(Report::Status { subject, status }) => self.take(subject, status),
                    Some(Report::Released { vm, ports }) => self.take_released(vm, &ports),
                    Some(Report::Deposed) => self.stop(),
                    None => return,
                },
                Some(sent) = self.sending.join_next(), if !self.sending.is_empty() => {
                    if let Ok(sent) = sent {
                        self.finish(sent);
                    }
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let now = Instant::now();
                    if now >= sweep {
                        self.vms.retain(|_, entry| !entry.is_forgotten(now));
                        sweep = now + SWEEP;
                    }
                }
            }
        }
    }

    /// The time of the next report to send. `None` if there is no room, or nothing waits.
    fn next_due(&self) -> Option<Instant> {
        let (at, _) = self.due.first().filter(|_| self.sending.len() < AT_ONCE)?;
        Some(self.pause.map_or(*at, |pause| pause.max(*at)))
    }

    fn schedule(&mut self, vm: &VmKey, at: Option<Instant>) {
        let Some(entry) = self.vms.get_mut(vm) else { return };
        if let Some(before) = std::mem::replace(&mut entry.due, at) {
            self.due.remove(&(before, vm.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, vm.clone()));
        }
    }

    /// Drops all reports that have not been sent.
    fn stop(&mut self) {
        self.due.clear();
        self.vms.retain(|_, entry| entry.busy);
        for entry in self.vms.values_mut() {
            (entry.report, entry.due) = (None, None);
            entry.outbox.truncate(entry.in_flight);
        }
    }

    fn forget(&mut self, vm: &VmKey) {
        self.schedule(vm, None);
        self.vms.remove(vm);
    }

    fn take(&mut self, subject: Subject, status: VmStatus) {
        let now = Instant::now();
        let Subject { object: Object { vm, uid, .. }, .. } = &subject;
        let (vm, uid) = (vm.clone(), uid.clone());
        let known = self.vms.get_mut(&vm);
        let present = subject.present(known.as_ref().and_then(|entry| entry.written.as_deref()));
        let verdict = verdict(&self.instance, &uid, present.text.as_deref(), &status);
        let entry = match known {
            Some(entry) => entry,
            None if verdict == Verdict::Leave => return,
            None => self.vms.entry(vm.clone()).or_insert_with(|| Entry::new(now)),
        };
        entry.is_of(&uid);
        if entry.written.as_ref().is_some_and(|written| !subject.has_not_seen(written)) {
            entry.written = None;
        }
        let held = compose(entry, &subject, &status, &verdict, now);
        self.metrics.dropped.inc_by(held);
        entry.report = Some(Box::new((subject, status)));
        if entry.busy {
            return;
        }
        if !matches!(verdict, Verdict::Write(_)) && entry.outbox.is_empty() {
            // The annotation is as it should be by now.
            entry.report = None;
            self.schedule(&vm, None);
        } else if entry.due.is_none() || entry.refused.as_deref() != Some(&verdict) {
            // A refused report keeps its time, unless there is another status to report.
            let at = entry.not_before(now);
            let at = match entry.due {
                Some(due) if entry.refused.is_none() && entry.failures > 0 => due.max(at),
                _ => at,
            };
            self.schedule(&vm, Some(at));
        }
    }

    fn take_released(&mut self, vm: VmKey, ports: &[LogicalSwitchPort]) {
        let now = Instant::now();
        if ports.is_empty() && !self.vms.contains_key(&vm) {
            return;
        }
        let entry = self.vms.entry(vm.clone()).or_insert_with(|| Entry::new(now));
        (entry.gone, entry.report, entry.announced, entry.written) = (true, None, None, None);
        let mut held = 0;
        for port in ports {
            let uid = port.external_ids.get(keys::VM_UID).unwrap_or_default().to_owned();
            let about = Object { vm: vm.clone(), is_vm: true, uid };
            held += entry.announce(&about, vec![news::released(port)], now);
        }
        self.metrics.dropped.inc_by(held);
        if entry.busy {
            return;
        }
        if entry.outbox.is_empty() {
            self.forget(&vm);
        } else if entry.due.is_none() || !ports.is_empty() {
            self.schedule(&vm, Some(now));
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        if self.pause.is_some_and(|pause| pause > now) {
            return;
        }
        self.pause = None;
        while self.sending.len() < AT_ONCE && self.due.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, vm)) = self.due.pop_first() {
                self.start(vm);
            }
        }
    }

    fn start(&mut self, vm: VmKey) {
        let Some(entry) = self.vms.get_mut(&vm) else { return };
        entry.due = None;
        let report = entry.report.take();
        let verdict = report.as_ref().map_or(Verdict::Leave, |report| {
            let (subject, status) = &**report;
            let present = subject.present(entry.written.as_deref());
            verdict(&self.instance, &subject.object.uid, present.text.as_deref(), status)
        });
        if !matches!(verdict, Verdict::Write(_)) {
            entry.announced = None;
        }
        let annotation = match (&verdict, &report) {
            (Verdict::Write(text), Some(report)) => {
                Some(Annotation { on: report.0.object.clone(), text: text.clone() })
            }
            _ => None,
        };
        if annotation.is_none() && entry.outbox.is_empty() {
            return;
        }
        (entry.busy, entry.in_flight) = (true, entry.outbox.len());
        let events: Vec<Outgoing> = entry.outbox.iter().cloned().collect();
        let client = self.client.clone();
        self.sending.spawn(async move {
            let outcome = send(&client, &events, annotation.as_ref()).await;
            Sent { vm, report, verdict, outcome }
        });
    }

    fn finish(&mut self, Sent { vm, report, verdict, outcome }: Sent) {
        let now = Instant::now();
        let Outcome { settled, lost, troubles, written } = outcome;
        self.metrics.dropped.inc_by(lost.len() as u64);
        self.metrics.sent.inc_by((settled - lost.len()) as u64);
        for (_, refusal) in lost.iter().chain(&troubles) {
            let unreachable = Again::after(refusal) == Again::Pause;
            let reason = if unreachable { "unreachable" } else { "refused" };
            self.metrics.failures.get_or_create(&[("reason", reason)]).inc();
        }
        lost.iter().for_each(|(call, refusal)| self.complaints.log(*call, &vm, refusal, true));
        troubles.iter().for_each(|(call, refusal)| self.complaints.log(*call, &vm, refusal, false));
        let Some(entry) = self.vms.get_mut(&vm) else { return };
        (entry.busy, entry.in_flight) = (false, 0);
        entry.outbox.drain(..settled.min(entry.outbox.len()));
        let again = troubles.iter().map(|(_, refusal)| Again::after(refusal)).max();
        let wrote = matches!(verdict, Verdict::Write(_));
        let mut verdict = verdict;
        if let Some(written) = written {
            (entry.written, entry.annotated) = (Some(Box::new(written)), Some(now));
            if entry.report.is_none() {
                entry.announced = None;
            }
            // Only Events are left to be sent.
            verdict = Verdict::Leave;
        } else if wrote && again.is_none() {
            // The object is gone; the watch will report that.
            (entry.announced, entry.written) = (None, None);
        } else if wrote && !entry.gone && entry.report.is_none() {
            entry.report = report;
        }
        match again {
            None => {
                (entry.failures, entry.refused) = (0, None);
                self.pauses = 0;
                self.go_on(&vm, now);
            }
            Some(again) => {
                let server = troubles.iter().filter_map(|(_, refusal)| refusal.retry_after()).max();
                self.put_off(&vm, again, verdict, server);
            }
        }
    }

    /// Continues with a VM after its report was sent.
    fn go_on(&mut self, vm: &VmKey, now: Instant) {
        let Some(entry) = self.vms.get(vm) else { return };
        if entry.report.is_some() || !entry.outbox.is_empty() {
            let at = if entry.report.is_some() { entry.not_before(now) } else { now };
            self.schedule(vm, Some(at));
        } else if entry.gone {
            self.forget(vm);
        }
    }

    /// Schedules another try.
    fn put_off(&mut self, vm: &VmKey, again: Again, verdict: Verdict, server: Option<Duration>) {
        let now = Instant::now();
        let Some(entry) = self.vms.get_mut(vm) else { return };
        entry.failures = entry.failures.saturating_add(1);
        if entry.gone && (again == Again::Slowly || entry.failures > TRIES_FOR_THE_GONE) {
            self.metrics.dropped.inc_by(entry.outbox.len() as u64);
            self.forget(vm);
            return;
        }
        entry.refused = (again == Again::Slowly).then(|| Box::new(verdict));
        let doubled = |first: Duration, last: Duration, times: u32| {
            let delay = first.saturating_mul(1 << times.saturating_sub(1).min(16));
            delay.min(last)
        };
        let delay = match again {
            Again::Slowly => doubled(FIRST_REFUSED, LAST_REFUSED, entry.failures),
            Again::Soon => doubled(FIRST_RETRY, LAST_RETRY, entry.failures),
            Again::Pause => {
                // Requests that were in flight together fail together.
                if self.pause.is_none() {
                    self.pauses = self.pauses.saturating_add(1);
                }
                let pause = server.unwrap_or_else(|| doubled(FIRST_PAUSE, LAST_PAUSE, self.pauses));
                self.pause = self.pause.max(Some(now + pause));
                pause
            }
        };
        self.schedule(vm, Some(now + delay.max(server.unwrap_or_default())));
    }
}
