//! The service's writing path inside the test: the link and the writer, without the watches before them and the
//! reporter behind them. All that tests and benches know of how the service is put together is here.

use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::controller::{
    Arrival, Asker, ClusterIdentity, Leadership, Ledger, Link, LinkSettings, Linker, Metrics, Observed, Report,
    SouthboundFeed, Status, Writer, WriterSettings, follow_southbound,
};
use ovn_kubevirt::intent::{DhcpSettings, Policy, Retention, Settings, Strategy};
use ovn_kubevirt::kubevirt::Change;
use ovn_kubevirt::ovn;
use ovn_kubevirt::ovsdb::{Shared, Target};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::stage::DEFAULT_SWITCH;

/// The cluster that it serves, in the place of the UID of the namespace `kube-system`.
pub const CLUSTER: &str = "in-process";

/// It, running.
pub struct InProcess {
    /// Its replica.
    pub northbound: Arc<Shared<ovn::Northbound>>,
    /// The southbound's, where it reads one.
    pub southbound: Option<SouthboundFeed>,
    /// How it stands with the database.
    pub link: watch::Receiver<Link>,
    /// The changes, as from the watches.
    pub changes: mpsc::Sender<Arrival>,
    /// The reports, as for the reporter.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// The status of the service.
    pub status: Status,
    /// The metrics of the service.
    pub metrics: Metrics,
    /// The statuses of VMs.
    pub ledger: Ledger,
    /// Asks the writer.
    pub asker: Asker,
    /// Each ends with words.
    pub tasks: JoinSet<String>,
    leadership: watch::Sender<Leadership>,
}

impl InProcess {
    /// The writing path on these remotes, alone; [`Options::start`] starts it.
    pub fn on(remotes: &str) -> Options<'_> {
        Options {
            remotes,
            southbound: None,
            leader_only: true,
            default_switch: DEFAULT_SWITCH,
            room: 10_000,
            address_rest: Duration::ZERO,
        }
    }

    /// The leadership: this process leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Sends changes as the watches would, all before the writer reads any.
    ///
    /// # Panics
    /// When there is no room for them.
    pub fn feed(&self, changes: impl IntoIterator<Item = Change>) {
        changes
            .into_iter()
            .for_each(|change| self.changes.try_send(Arrival::now(change)).expect("room for the changes"));
    }

    /// Hands changes over as the watches would, and waits where there is no room for them.
    pub async fn send(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.changes.send(Arrival::now(change)).await.expect("the writer runs");
        }
    }

    /// Waits until the writer has no work, no transaction in flight and none prepared. `look` waits until the writer
    /// has decided all that it was fed: it does so after it has read an answer, and sent the prepared transaction. So
    /// no work is left if all requests were answered before a look, and there is no new request until after it.
    pub async fn idle(&mut self, mut look: impl AsyncFnMut(&mut Self)) {
        let mut before = None;
        loop {
            look(self).await;
            let now = match &*self.link.borrow() {
                Link::Up(office) => Some(office.connection.requests()).filter(|(_, unanswered)| *unanswered == 0),
                Link::NotYet | Link::Down(_) | Link::Following | Link::Barred(_) => None,
            };
            if now.is_some() && now == before {
                return;
            }
            before = now;
        }
    }
}

/// The options of the writing path.
pub struct Options<'a> {
    remotes: &'a str,
    southbound: Option<&'a str>,
    leader_only: bool,
    default_switch: &'a str,
    room: usize,
    address_rest: Duration,
}

impl<'a> Options<'a> {
    /// Any member of a cluster will do, and not its leader alone.
    #[must_use]
    pub fn any_member(self) -> Self {
        Self { leader_only: false, ..self }
    }

    /// It reads this southbound.
    #[must_use]
    pub fn southbound(self, remotes: &'a str) -> Self {
        Self { southbound: Some(remotes), ..self }
    }

    /// The switch of VMs that name none, in the place of `ovn-default`.
    #[must_use]
    pub fn default_switch(self, switch: &'a str) -> Self {
        Self { default_switch: switch, ..self }
    }

    /// How many changes may wait for it, in the place of 10,000.
    #[must_use]
    pub fn room(self, changes: usize) -> Self {
        Self { room: changes, ..self }
    }

    /// For how long released addresses rest.
    #[must_use]
    pub fn address_rest(self, rest: Duration) -> Self {
        Self { address_rest: rest, ..self }
    }

    /// Starts it.
    pub fn start(self) -> InProcess {
        run(self)
    }
}

fn run(options: Options<'_>) -> InProcess {
    let Options { remotes, southbound, leader_only, default_switch, room, address_rest } = options;
    let mut tasks = JoinSet::new();
    let southbound = southbound.map(|remotes| follow(remotes, &mut tasks));
    let northbound = Arc::new(Shared::new(ovn::Northbound::new("default")));
    let (link_sender, link) = watch::channel(Link::default());
    let (leadership_sender, leadership) = watch::channel(Leadership::Leader { transitions: 0 });
    let (changes, changes_receiver) = mpsc::channel(room);
    let (reports_sender, reports) = mpsc::unbounded_channel();
    let remotes = remotes.parse().expect("remotes");
    let linker = Linker::new(LinkSettings {
        target: Target { remotes, tls: None, probe_interval: Duration::from_secs(30), leader_only },
        instance: "default".to_owned(),
        cluster: watch::channel(ClusterIdentity::Known(CLUSTER.into())).1,
        take_over_cluster: None,
        northbound: Arc::clone(&northbound),
        leadership,
        candidacy: None,
        link: link_sender,
    });
    let (status, metrics) = (Status::new(link.clone()), Metrics::default());
    metrics.observe(Observed {
        northbound: Arc::clone(&northbound),
        southbound: southbound.as_ref().map(|feed| Arc::clone(&feed.replica)),
        status: status.clone(),
    });
    let ledger = Ledger::new(reports_sender, &metrics);
    let (asker, questions) = Asker::channel();
    let writer = Writer::new(WriterSettings {
        settings: Settings {
            default_switch: Some(default_switch.to_owned()),
            mac_prefix: [0x0a, 0x58],
            strategy: Strategy::default(),
            default_retain: Retention::NONE,
            policy: every_address(),
            manage_ra: false,
            dhcp: DhcpSettings::default(),
        },
        northbound: Arc::clone(&northbound),
        link: link.clone(),
        southbound: southbound.clone(),
        changes: changes_receiver,
        probe_interval: Duration::from_secs(30),
        questions,
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        address_rest,
        dhcp_grace: Duration::from_secs(60),
        allow_mass_release: false,
        status: status.clone(),
    });
    tasks.spawn(async move { format!("the link ended: {:?}", linker.run().await) });
    tasks.spawn(async move { format!("the writer ended: {:?}", writer.run().await) });
    InProcess {
        northbound,
        southbound,
        link,
        changes,
        reports,
        status,
        metrics,
        ledger,
        asker,
        tasks,
        leadership: leadership_sender,
    }
}

fn follow(remotes: &str, tasks: &mut JoinSet<String>) -> SouthboundFeed {
    let replica = Arc::new(Shared::new(ovn::Southbound::default()));
    let (sender, in_sync) = watch::channel(None);
    let remotes = remotes.parse().expect("remotes");
    let target = Target { remotes, tls: None, probe_interval: Duration::from_secs(30), leader_only: false };
    let following = follow_southbound(target, Arc::clone(&replica), sender);
    tasks.spawn(async move {
        following.await;
        "the southbound is followed no more".to_owned()
    });
    SouthboundFeed { replica, in_sync }
}

/// Owners of VMs may name every address, and have them retained for ever.
fn every_address() -> Policy {
    let allow = "explicit,excluded,first".parse().expect("permissions");
    Policy { allow, max_retain: Retention::Forever, ..Policy::default() }
}
