//! The source's ovn-controller exits in order in mid-migration, which takes its row out of the southbound, and comes back.

use std::time::Duration;

use super::super::eventually::eventually;
use super::{AROUND, Lab, Moved};

/// The chassis that are requested while the source has no chassis row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// Both chassis still: northd skips the one that it does not know.
    Both,
    /// The source alone, until it is back.
    SourceAlone,
}

/// The guest's part meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// It runs on the source all the time.
    Stays,
    /// It leaves for the target while the source is no chassis.
    Moves,
}

/// The time without a chassis row of the source: about that of a restart of ovn-controller.
const GONE: Duration = Duration::from_millis(1_500);

impl Lab {
    /// Without a service: a migration from `from` to `to` is prepared, and `from` goes and comes. The options are
    /// written as soon as the southbound shows it, as a service would; domain-ready comes half a second after the source
    /// is back, where the guest moves.
    pub async fn chassis_goes_and_comes(&mut self, (from, to): (&str, &str), away: Away, guests: Guests) -> Moved {
        let both = format!("{from},{to}");
        self.ask_for(&both);
        let mut arriving = self.plug(to);
        self.claimed().await;
        self.flows_stand();
        let traffic = self.traffic();
        tokio::time::sleep(AROUND).await;
        self.stop_chassis(from).await;
        if away == Away::SourceAlone {
            self.ask_for(from);
        }
        tokio::time::sleep(GONE / 2).await;
        if guests == Guests::Moves {
            let mut leaving = self.guest.take().expect("the VM runs");
            arriving.wake_with(&leaving.sleep());
            self.guest = Some(std::mem::replace(&mut arriving, leaving));
        }
        tokio::time::sleep(GONE / 2).await;
        self.start_chassis(from).await;
        self.settled().await;
        if away == Away::SourceAlone {
            self.ask_for(&both);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Domain-ready, or the migration is given up.
        let home = if guests == Guests::Moves { to } else { from };
        self.ask_for(home);
        self.flows_stand();
        tokio::time::sleep(AROUND).await;
        self.unplug(arriving);
        traffic.end()
    }

    /// A chassis' ovn-controller exits in order, and its row is gone.
    pub async fn stop_chassis(&mut self, chassis: &str) {
        self.fabric.stop_controller(host(chassis)).await;
        self.has_row(chassis, false).await;
    }

    /// It starts again, and has its row.
    pub async fn start_chassis(&mut self, chassis: &str) {
        self.fabric.start_controller(host(chassis));
        self.has_row(chassis, true).await;
    }

    async fn has_row(&self, chassis: &str, has: bool) {
        let named = format!("name={chassis}");
        eventually(&format!("{chassis} is a chassis: {has}"), || async {
            let found = self.northbound.sbctl(&["--bare", "--columns=name", "find", "Chassis", &named]);
            if found.trim().is_empty() == has { Err(found) } else { Ok(()) }
        })
        .await;
    }

    /// northd has seen all that the southbound has.
    async fn settled(&self) {
        self.northbound.sync_southbound();
    }

    fn ask_for(&self, requested: &str) {
        let strategy = if requested.contains(',') { "rarp" } else { "" };
        let mut options = vec![format!("requested-chassis={requested}")];
        options.extend((!strategy.is_empty()).then(|| format!("activation-strategy={strategy}")));
        let mut arguments = vec!["lsp-set-options", &self.port.name];
        arguments.extend(options.iter().map(String::as_str));
        self.northbound.nbctl(&arguments);
    }
}

fn host(chassis: &str) -> usize {
    chassis.trim_start_matches("hv").parse().expect("hv and a number")
}
