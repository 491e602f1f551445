//! The service's writing path inside the test: the link and the writer, without the watches before them and the
//! reporter behind them. All that tests and benches know of how the service is put together is here.

use std::sync::Arc;
use std::time::Duration;

use ovn_kubevirt::controller::{
    ClusterIdentity, Leadership, Ledger, Link, LinkSettings, Linker, Metrics, Report, SouthboundFeed, Status, Writer,
    WriterSettings, follow_southbound,
};
use ovn_kubevirt::intent::{Retention, Settings, Strategy};
use ovn_kubevirt::kubevirt::Change;
use ovn_kubevirt::ovn;
use ovn_kubevirt::ovsdb::{Shared, Target};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The cluster that it serves, by what would be the UID of the namespace `kube-system`.
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
    pub changes: mpsc::Sender<Change>,
    /// The reports, as for the reporter.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// What it would say of itself.
    pub status: Status,
    /// What it would count.
    pub metrics: Metrics,
    /// Each ends with words.
    pub tasks: JoinSet<String>,
    _leadership: watch::Sender<Leadership>,
}

impl InProcess {
    /// Waits until the writer has nothing to do, nothing in flight and nothing prepared. `look` waits until the writer
    /// has decided all that it was fed: it does so after it has heard of an answer, and sent what was prepared. So
    /// where all was answered before a look, and nothing is asked until after it, nothing is left.
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

/// Starts it on these remotes, alone, with so much room for changes.
pub fn start(remotes: &str, leader_only: bool, default_switch: &str, room: usize) -> InProcess {
    start_beside(None, remotes, leader_only, default_switch, room, Duration::ZERO)
}

/// The same beside a southbound, with released addresses that rest so long.
pub fn start_beside(
    southbound: Option<&str>,
    remotes: &str,
    leader_only: bool,
    default_switch: &str,
    room: usize,
    address_rest: Duration,
) -> InProcess {
    let mut tasks = JoinSet::new();
    let southbound = southbound.map(|remotes| {
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
    });
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
    let writer = Writer::new(WriterSettings {
        settings: Settings {
            default_switch: Some(default_switch.to_owned()),
            mac_prefix: [0x0a, 0x58],
            strategy: Strategy::default(),
            allow_port_security_off: false,
            default_retain: Retention::NONE,
        },
        northbound: Arc::clone(&northbound),
        link: link.clone(),
        southbound: southbound.clone(),
        changes: changes_receiver,
        ledger: Ledger::new(reports_sender, &metrics),
        metrics: metrics.clone(),
        address_rest,
        allow_mass_release: false,
        status: status.clone(),
    });
    tasks.spawn(async move { format!("the link ended: {:?}", linker.run().await) });
    tasks.spawn(async move { format!("the writer ended: {:?}", writer.run().await) });
    InProcess { northbound, southbound, link, changes, reports, status, metrics, tasks, _leadership: leadership_sender }
}
