//! `status`: what the process is, and what it waits for.

use std::sync::Arc;

use super::failure::{Failure, Reason};
use super::method::Method;
use super::model::{NoParams, NorthboundStatus, Role, ServiceStatus, SouthboundState, WatchStatus};
use super::sources::Api;
use crate::controller::{Leadership, Standing, kind_name};
use crate::kubevirt::Kind;

/// `status`
pub(super) struct Get;

impl Method for Get {
    const NAME: &'static str = "status";
    const SUMMARY: &'static str =
        "Tells what the process is, whether it is ready, and what an operator has to look at.";
    const ERRORS: &'static [Reason] = &[];
    type Params = NoParams;
    type Answer = ServiceStatus;

    async fn call(api: Arc<Api>, NoParams {}: NoParams) -> Result<ServiceStatus, Failure> {
        let worker = Arc::clone(&api);
        // The problems of all VMs are counted.
        Ok(api.heavily(move || status(&worker)).await)
    }
}

fn status(api: &Api) -> ServiceStatus {
    let sources = &api.sources;
    let ready = sources.status.ready();
    let role = match &ready {
        Ok(Standing::Leading) => Role::Leading,
        Ok(Standing::Following) => Role::Following,
        Err(_) => Role::None,
    };
    let leader = match &*sources.leadership.borrow() {
        Leadership::Follower { leader } => leader.clone(),
        Leadership::Leader { .. } => None,
    };
    let southbound = match &sources.replicas.southbound {
        None => SouthboundState::Unread,
        Some(feed) if *feed.in_sync.borrow() == Some(true) => SouthboundState::Synced,
        Some(_) => SouthboundState::Away,
    };
    let northbound = &sources.replicas.northbound;
    let silent_seconds = northbound.silence().map(|silence| silence.as_secs());
    let (instance, ports, vms) = {
        let view = northbound.read();
        (view.instance().to_owned(), view.port_count() as u64, view.vms().count() as u64)
    };
    let watches = Kind::ALL.into_iter().map(|kind| WatchStatus {
        kind: kind_name(kind).to_owned(),
        age_seconds: sources.health.age(kind).map(|age| age.as_secs()),
    });
    let problems = sources.replicas.ledger.problems();
    let remark = sources.status.remark();
    ServiceStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance,
        ready: ready.is_ok(),
        role,
        reason: ready.err().map(|unready| unready.to_string()),
        leader,
        remark: Some(remark.trim_start_matches("; ").to_owned()).filter(|remark| !remark.is_empty()),
        uptime_seconds: api.started.elapsed().as_secs(),
        northbound: NorthboundStatus { silent_seconds, ports, vms },
        southbound,
        watches: watches.collect(),
        problems: problems.into_iter().map(|(reason, count)| (reason.to_owned(), count as u64)).collect(),
        subscriptions: api.subscriptions.count() as u64,
        log_filter: sources.log.present(),
    }
}
