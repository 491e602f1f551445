//! The link to the northbound database: connected, in sync, and in office, or on the way there.
//!
//! ```text
//!            connect, sync               the Lease is ours, the server can be written:
//!   Down ------------------> Following --------------- raise the epoch ---------------> Up
//!    ^ ^                      |   ^                                                      |
//!    | +-- connection lost ---+   +-- Lease lost, server no leader any more, fenced -----+
//!    +------------------------------- connection lost ----------------------------------+
//! ```
//!
//! Beside these, `Barred`: in sync, and not allowed to take office, because the cluster is not known yet or the instance
//! belongs to another one (`identity.rs`).
//!
//! A process without office keeps its replica in sync all the same, so that taking over costs one transaction. A lost
//! connection is replaced with backoff of at most a second. A server that lost its leadership is left for the next one
//! at once.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::Instant;

use super::epoch::{Epoch, EpochError, Epochs};
use super::identity::{ClusterIdentity, OtherCluster, Ownership};
use super::lease::{Candidacy, Leadership};
use crate::ovn::Northbound;
use crate::ovsdb::{Connection, ConnectionError, Member, Session, Shared, Target, Unfit};

/// After a link was up for this long, it is made again at once. Shorter ones back off.
const STEADY: Duration = Duration::from_secs(5);
/// After a database was away for this long, the process stops standing for the Lease.
const GRACE: Duration = Duration::from_secs(3);
/// The pause after another process wrote an epoch, so that others go first.
const STEP_DOWN_PAUSE: Duration = Duration::from_secs(1);
/// The interval at which the replica is checked for the cluster of the instance. In office, the writer looks at every
/// change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The right to write: a connection and an epoch. Its replica is in sync.
pub struct Office {
    /// The connection for transactions.
    pub connection: Arc<Connection>,
    /// The epoch. Its fence is the first operation of each transaction.
    pub epoch: Epoch,
    lost: watch::Sender<bool>,
}

impl Office {
    fn new(connection: Arc<Connection>, epoch: Epoch) -> Self {
        Self { connection, epoch, lost: watch::Sender::new(false) }
    }

    /// Records that the database has another epoch: transactions of this office can no longer commit.
    pub fn lose(&self) {
        self.lost.send_replace(true);
    }

    /// Returns true while transactions may be sent.
    pub fn is_held(&self) -> bool {
        !*self.lost.borrow() && !self.connection.is_closed()
    }
}

/// The state of the link.
#[derive(Clone, Default)]
pub enum Link {
    /// The database has not been reached yet.
    #[default]
    NotYet,
    /// The last try failed; the text is the reason, for operators.
    Down(Arc<str>),
    /// The replica is in sync, and another process writes.
    Following,
    /// The replica is in sync, and this process may not write; the text is the reason, for operators.
    Barred(Arc<str>),
    /// The replica is in sync, and this process writes.
    Up(Arc<Office>),
}

/// The inputs and outputs of the link.
pub struct LinkSettings {
    /// The database.
    pub target: Target,
    /// The instance of the epoch.
    pub instance: String,
    /// The cluster that this process serves.
    pub cluster: watch::Receiver<ClusterIdentity>,
    /// The cluster that the instance may be taken over from, by the UID in the database.
    pub take_over_cluster: Option<String>,
    /// The replica.
    pub northbound: Arc<Shared<Northbound>>,
    /// The leader.
    pub leadership: watch::Receiver<Leadership>,
    /// Receives the candidacy. `None` under `--no-lease`, where the loss of office ends the process.
    pub candidacy: Option<watch::Sender<Candidacy>>,
    /// Receives the state of the link.
    pub link: watch::Sender<Link>,
}

/// The state of the task.
pub struct Linker {
    session: Session<Northbound>,
    northbound: Arc<Shared<Northbound>>,
    epochs: Epochs,
    cluster: watch::Receiver<ClusterIdentity>,
    ownership: Ownership,
    leadership: watch::Receiver<Leadership>,
    candidacy: Option<watch::Sender<Candidacy>>,
    link: watch::Sender<Link>,
    delay: ExponentialBackoff,
    last_error: String,
    last_bar: String,
}

/// The reason why this process may not take office, on any connection.
enum Bar {
    /// Its cluster is not known yet.
    Unknown(ClusterIdentity),
    /// The instance belongs to another cluster.
    Other(OtherCluster),
}

/// The reason why a connection is no longer served.
enum Ended {
    Connection(ConnectionError),
    Epoch(EpochError),
}

impl Linker {
    /// A link that is not up yet.
    pub fn new(settings: LinkSettings) -> Self {
        let LinkSettings { target, instance, cluster, take_over_cluster, northbound, leadership, candidacy, link } =
            settings;
        let ownership = Ownership::new(&instance, take_over_cluster);
        Self {
            session: Session::new(target, Arc::clone(&northbound)),
            northbound,
            epochs: Epochs::new(ownership.clone(), &instance),
            cluster,
            ownership,
            leadership,
            candidacy,
            link,
            delay: delays(),
            last_error: String::new(),
            last_bar: String::new(),
        }
    }

    /// Keeps the link up. Ends only without a Lease, if another process took office or the instance belongs to another
    /// cluster.
    pub async fn run(mut self) -> Result<(), EpochError> {
        let mut down_since = Instant::now();
        loop {
            let error = match self.connect(down_since + GRACE).await {
                Ok(connection) => {
                    let remotes = &self.session.target().remotes;
                    let (ports, resumed) = (self.northbound.read().port_count(), self.session.resumed());
                    tracing::info!(%remotes, ports, resumed, "northbound database in sync");
                    self.last_error.clear();
                    if self.session.rolled_back() {
                        // The present epoch is an old one, and shows no other process.
                        self.epochs.forget();
                    }
                    let since = Instant::now();
                    let ended = self.serve(Arc::new(connection)).await?;
                    down_since = Instant::now();
                    if since.elapsed() >= STEADY {
                        self.delay = delays();
                    }
                    if let Ended::Connection(ConnectionError::Unfit(unfit @ (Unfit::NotLeader | Unfit::Disconnected))) =
                        ended
                    {
                        tracing::info!(reason = %unfit, "looking for the cluster's leader");
                        self.link.send_replace(Link::Down(unfit.to_string().into()));
                        continue;
                    }
                    match ended {
                        Ended::Connection(error) => error.to_string(),
                        Ended::Epoch(error) => error.to_string(),
                    }
                }
                Err(error) => error,
            };
            // Once for each new reason: no line every second for a database that is away for an hour.
            if error != self.last_error {
                let remotes = &self.session.target().remotes;
                tracing::warn!(%remotes, error, "northbound database is away; trying again");
                self.last_error.clone_from(&error);
            }
            self.link.send_replace(Link::Down(error.into()));
            tokio::time::sleep(self.delay.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }

    /// Connects and syncs. If this takes too long, the process stops standing for the Lease.
    async fn connect(&mut self, until: Instant) -> Result<Connection, String> {
        let connecting = self.session.connect();
        tokio::pin!(connecting);
        let connected = tokio::select! {
            biased;
            connected = &mut connecting => connected,
            () = tokio::time::sleep_until(until) => {
                stand(self.candidacy.as_ref(), false);
                connecting.await
            }
        };
        connected.map_err(|error| error.to_string())
    }

    /// Serves one connection: takes and leaves office any number of times, until the connection ends.
    async fn serve(&mut self, connection: Arc<Connection>) -> Result<Ended, EpochError> {
        let leader_only = self.session.target().leader_only;
        let mut member = connection.member();
        let mut office: Option<(u64, Arc<Office>)> = None;
        loop {
            let writable = !leader_only || member.borrow_and_update().is_none_or(|member: Member| member.leader);
            let cluster = self.may_serve();
            // A process that may not serve the instance does not stand, so that it deposes no other.
            stand(self.candidacy.as_ref(), writable && cluster.is_ok());
            let leadership = self.leadership.borrow_and_update().clone();
            match (cluster, leadership) {
                (Err(bar), _) => {
                    office = None;
                    self.bar(bar)?;
                }
                (Ok(cluster), Leadership::Leader { transitions }) if writable => {
                    if office.as_ref().is_none_or(|(term, _)| *term != transitions) {
                        let seen = self.northbound.read().highest_epoch();
                        match self.epochs.raise(&connection, transitions, seen, &cluster).await {
                            Ok(epoch) => office = Some((transitions, self.take_office(&connection, epoch))),
                            Err(error @ EpochError::Deposed { .. }) => {
                                self.step_down(error).await?;
                                continue;
                            }
                            Err(EpochError::OtherCluster(error)) => {
                                self.bar(Bar::Other(error))?;
                                continue;
                            }
                            Err(error) => return Ok(Ended::Epoch(error)),
                        }
                    }
                }
                (Ok(_), Leadership::Leader { .. } | Leadership::Follower { .. }) => {
                    office = None;
                    self.publish(Link::Following);
                }
            }
            tokio::select! {
                error = connection.closed() => return Ok(Ended::Connection(error)),
                Ok(()) = self.leadership.changed() => {}
                Ok(()) = member.changed() => {}
                Ok(()) = self.cluster.changed() => {}
                // The next raise finds the reason: another epoch deposes, another cluster bars, and a deleted key of
                // the cluster is written again.
                () = lost(office.as_ref()) => office = None,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Returns the cluster that this process serves. Fails if it is not known yet, or if the replica shows that the
    /// instance belongs to another.
    fn may_serve(&mut self) -> Result<Arc<str>, Bar> {
        let cluster = match &*self.cluster.borrow_and_update() {
            ClusterIdentity::Known(uid) => Arc::clone(uid),
            unknown @ ClusterIdentity::Unknown(_) => return Err(Bar::Unknown(unknown.clone())),
        };
        let view = self.northbound.read();
        let present = view.global_external_id(&self.ownership.key);
        self.ownership.check(present, &cluster).map_err(Bar::Other)?;
        Ok(cluster)
    }

    /// Publishes why office is not taken. Without a Lease, an instance of another cluster ends the process.
    fn bar(&mut self, bar: Bar) -> Result<(), EpochError> {
        let reason = match bar {
            Bar::Unknown(identity) => format!("the cluster is not known: {identity}"),
            Bar::Other(error) if self.candidacy.is_none() => return Err(error.into()),
            Bar::Other(error) => {
                let reason = error.to_string();
                if self.last_bar != reason {
                    tracing::warn!(reason, "this process is not ready and does not stand for the Lease");
                    self.last_bar.clone_from(&reason);
                }
                reason
            }
        };
        self.publish(Link::Barred(reason.into()));
        Ok(())
    }

    /// Publishes the state, if it is new: the writer decides for every VM after a change of the leader.
    fn publish(&self, link: Link) {
        self.link.send_if_modified(|present| {
            let known = match (&*present, &link) {
                (Link::Following, Link::Following) => true,
                (Link::Barred(present), Link::Barred(reason)) => present == reason,
                _ => false,
            };
            if !known {
                *present = link;
            }
            !known
        });
    }

    fn take_office(&self, connection: &Arc<Connection>, epoch: Epoch) -> Arc<Office> {
        tracing::info!(epoch = epoch.value, "in office: this process writes the northbound database");
        let office = Arc::new(Office::new(Arc::clone(connection), epoch));
        self.link.send_replace(Link::Up(Arc::clone(&office)));
        office
    }

    /// Steps down after another process wrote an epoch. Office can be taken again through the Lease; without one, the
    /// process ends.
    async fn step_down(&mut self, reason: EpochError) -> Result<(), EpochError> {
        let Some(candidacy) = &self.candidacy else { return Err(reason) };
        self.link.send_replace(Link::Following);
        tracing::warn!(%reason, "stepping down, and standing for the Lease again");
        stand(Some(candidacy), false);
        // Without the Lease's task the process is ending.
        let _ = self.leadership.wait_for(|leadership| matches!(leadership, Leadership::Follower { .. })).await;
        tokio::time::sleep(STEP_DOWN_PAUSE).await;
        Ok(())
    }
}

/// Publishes whether the database can be written from here.
fn stand(candidacy: Option<&watch::Sender<Candidacy>>, stands: bool) {
    if let Some(candidacy) = candidacy {
        candidacy.send_if_modified(|candidacy| std::mem::replace(&mut candidacy.stands, stands) != stands);
    }
}

/// Waits until the office is lost.
async fn lost(office: Option<&(u64, Arc<Office>)>) {
    if let Some((_, office)) = office
        && office.lost.subscribe().wait_for(|lost| *lost).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The pauses between tries: from 20 ms to a second.
pub(super) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .with_jitter()
        .without_max_times()
        .build()
}
