//! The southbound beside a northbound, with `ovn-northd` between the two or without, and the chassis in it.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use serde_json::json;

use super::super::eventually::eventually;
use super::super::ovsdb_server::OvsdbServer;
use super::super::process::{Daemon, mortal};
use super::Northbound;
use super::rows::text;

impl Northbound {
    /// Adds a southbound and an `ovn-northd` between the two, and waits until northd has done its first round.
    pub async fn with_northd(self) -> Self {
        let this = self.with_southbound().await;
        this.start_northd().await;
        this
    }

    /// Adds a southbound that no northd writes: for chassis alone.
    pub async fn with_southbound(mut self) -> Self {
        let southbound = OvsdbServer::create(self.dir(), "sb", "OVN_Southbound").await;
        southbound.transact(json!([{"op": "insert", "table": "SB_Global", "row": {}}]));
        self.southbound = Some(southbound);
        self
    }

    /// The southbound, where there is one.
    ///
    /// # Panics
    /// Without [`with_northd`](Self::with_northd) or [`with_southbound`](Self::with_southbound).
    #[track_caller]
    pub fn southbound(&self) -> &OvsdbServer {
        self.southbound.as_ref().expect("a northbound made by with_northd() has a southbound")
    }

    /// The southbound's remote on its unix socket.
    #[track_caller]
    pub fn sb_remote(&self) -> String {
        self.southbound().remote()
    }

    /// `ovn-sbctl` on the southbound.
    #[track_caller]
    pub fn sbctl(&self, arguments: &[&str]) -> String {
        self.southbound().ctl("ovn-sbctl", arguments)
    }

    /// A chassis as ovn-controller registers one.
    #[track_caller]
    pub fn add_chassis(&self, name: &str, hostname: &str) {
        // Type and address of a tunnel's end are unique.
        let taken: BTreeSet<String> = self.southbound().rows("Encap").iter().map(|row| text(&row["ip"])).collect();
        let ip = (1..).map(|host| format!("127.0.0.{host}")).find(|ip| !taken.contains(ip)).expect("one is free");
        let encap = json!({
            "chassis_name": name, "type": "geneve", "ip": ip, "options": ["map", [["csum", "true"]]],
        });
        self.southbound().transact(json!([
            {"op": "insert", "table": "Encap", "uuid-name": "encap", "row": encap},
            {"op": "insert", "table": "Chassis",
             "row": {"name": name, "hostname": hostname, "encaps": ["named-uuid", "encap"]}},
            {"op": "insert", "table": "Chassis_Private", "row": {"name": name}},
        ]));
    }

    /// A chassis that ovn-controller takes away as it ends.
    #[track_caller]
    pub fn remove_chassis(&self, name: &str) {
        let of = |table: &str, column: &str| json!({"op": "delete", "table": table, "where": [[column, "==", name]]});
        self.southbound().transact(json!([of("Chassis", "name"), of("Chassis_Private", "name")]));
    }

    /// Waits until northd has worked off all that is in the northbound now.
    #[track_caller]
    pub fn sync_southbound(&self) {
        self.nbctl(&["--wait=sb", "sync"]);
    }

    /// SIGSTOP to northd: it lags behind.
    pub fn freeze_northd(&self) {
        self.with_northd_daemon(Daemon::freeze);
    }

    /// SIGCONT to northd.
    pub fn thaw_northd(&self) {
        self.with_northd_daemon(Daemon::thaw);
    }

    /// SIGKILL to northd.
    pub fn kill9_northd(&self) {
        self.with_northd_daemon(Daemon::kill9);
    }

    /// Starts northd, again after [`kill9_northd`](Self::kill9_northd), and waits until it has synced.
    pub async fn start_northd(&self) {
        let file = |extension: &str| self.dir().join(format!("northd.{extension}")).display().to_string();
        let mut command = mortal("ovn-northd");
        command
            .args(["-vconsole:off", "-vsyslog:off", "-vfile:info"])
            .arg(format!("--ovnnb-db={}", self.remote()))
            .arg(format!("--ovnsb-db={}", self.sb_remote()))
            .arg(format!("--unixctl={}", file("ctl")))
            .arg(format!("--log-file={}", file("log")))
            // This machine's own OVN must be neither found nor touched.
            .envs([
                ("OVN_RUNDIR", self.dir()),
                ("OVN_DBDIR", self.dir()),
                ("OVN_LOGDIR", self.dir()),
            ]);
        let northd = Daemon::start("ovn-northd", command);
        *self.northd.lock().unwrap_or_else(PoisonError::into_inner) = Some(northd);
        eventually("northd has the southbound's lock and is active", async || {
            let status = std::process::Command::new("ovn-appctl")
                .args(["-t", &file("ctl"), "status"])
                .output()
                .map_err(|error| error.to_string())?;
            let said = String::from_utf8_lossy(&status.stdout).into_owned();
            if said.contains("active") {
                Ok(())
            } else {
                Err(format!("{said}{}", String::from_utf8_lossy(&status.stderr)))
            }
        })
        .await;
        self.sync_southbound();
    }

    fn with_northd_daemon(&self, act: impl FnOnce(&Daemon)) {
        let northd = self.northd.lock().unwrap_or_else(PoisonError::into_inner);
        act(northd.as_ref().expect("a northbound made by with_northd() has a northd"));
    }
}
