//! Each verb of the roles is taken away in turn, and missed.

use std::ops::Deref;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::task::JoinSet;

use super::super::LEASE;
use super::{ALLOWED, ALLOWED_AT_HOME, ALLOWED_OF_CONFIGURATIONS, ALLOWED_OF_KUBE_SYSTEM, Call};
use crate::admission::{SECRET, bundles};
use crate::support::deploy::Account;
use crate::support::service::Setup;
use crate::support::webhooks::{CONFIGURATIONS, Configurations, webhook_flags};
use crate::support::{Cluster, Nic, Player, Prepared, Service, Stage, VmOptions, deploy, eventually, holds_for};

const PORTS: &str = "ovn-kubevirt.io/ports";

#[tokio::test]
async fn without_any_one_of_its_verbs_the_service_does_not_do_its_job() {
    // The first case starts the servers, before all run at once.
    let (everywhere, at_home) = deploy::shipped_rules(Cluster::shared().client().await).await;
    let mut cases = JoinSet::new();
    let of_all: Vec<Call> =
        ALLOWED.into_iter().chain(ALLOWED_OF_KUBE_SYSTEM).chain(ALLOWED_OF_CONFIGURATIONS).collect();
    let calls = of_all.clone().into_iter().chain(ALLOWED_AT_HOME).map(Some).chain([None]);
    for (index, without) in calls.enumerate() {
        let everywhere = cut(&everywhere, &of_all, without);
        let at_home = cut(&at_home, &ALLOWED_AT_HOME, without);
        cases.spawn(async move { Cut::new(index, &everywhere, &at_home).await.shows_the_need_for(without).await });
    }
    while let Some(ended) = cases.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// The rules, each with one resource and one verb, but for the call that is taken away.
pub(in super::super) fn cut(rules: &[PolicyRule], all: &[Call], without: Option<Call>) -> Vec<PolicyRule> {
    let without = without.filter(|call| all.contains(call));
    let mut left = Vec::new();
    let mut taken = 0;
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    if without == Some((group.as_str(), resource.as_str(), verb.as_str())) {
                        taken += 1;
                        continue;
                    }
                    left.push(PolicyRule {
                        api_groups: Some(vec![group.clone()]),
                        resources: Some(vec![resource.clone()]),
                        resource_names: rule.resource_names.clone(),
                        verbs: vec![verb.clone()],
                        ..PolicyRule::default()
                    });
                }
            }
        }
    }
    assert_eq!((left.len(), taken), (all.len() - taken, usize::from(without.is_some())), "{rules:?}");
    left
}

/// Services under copies of the roles, with less in them.
struct Cut {
    prepared: Prepared,
    account: Account,
}

impl Deref for Cut {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        &self.prepared
    }
}

impl Cut {
    async fn new(index: usize, everywhere: &[PolicyRule], at_home: &[PolicyRule]) -> Self {
        let prepared = Stage::build(&format!("cut-{index}")).prepare().await;
        let account = Account::new(&prepared.namespace, prepared.dir(), everywhere, at_home).await;
        Self { prepared, account }
    }

    async fn shows_the_need_for(self, call: Option<Call>) {
        // The Lease is the one that it would have in a pod of this namespace.
        let lease = format!("{}/{}", self.namespace.name, LEASE);
        let setup = self.setup().lease(&lease).kubeconfig(&self.account.kubeconfig);
        let slow = setup.clone().flags(["--lease-duration", "600"]);
        match call {
            None => {
                self.put_lease("another", 600).await;
                let service = self.with_webhooks(&slow).start().await;
                let configurations = Configurations::new(&self.namespace, &service.webhooks().await);
                for kind in CONFIGURATIONS {
                    eventually("the CA is there", || async {
                        let bundles = bundles(&self.namespace, kind).await;
                        if bundles.iter().all(|it| it.contains("BEGIN")) { Ok(()) } else { Err(service.log()) }
                    })
                    .await;
                }
                drop(configurations);
                self.no_process_leads(&service, "led", ("coordination.k8s.io", "leases", "nothing")).await;
                self.put_lease("", 1).await;
                self.port("led").await;
                self.all_is_well(&service).await;
            }
            Some(call @ (_, "secrets", _)) => self.no_certificate(&setup, call).await,
            Some(call @ ("admissionregistration.k8s.io", ..)) => self.not_trusted(&setup, call).await,
            Some(call @ (_, "leases", "get" | "create")) => self.never_leads(&setup.start().await, call).await,
            Some(call @ (_, "leases", "update")) => {
                self.leads_not_for_long(&setup.flags(["--lease-duration", "5"]).start().await, call).await;
            }
            Some(call @ (_, "leases", _)) => {
                self.put_lease("another", 600).await;
                self.takes_over_late(&slow.start().await, call).await;
            }
            Some(call @ (_, _, "list" | "get")) => self.never_ready(&setup.spawn(), call).await,
            Some(call @ (_, _, "watch")) => self.news_unseen(&setup.spawn(), call).await,
            Some(call @ (_, "events", "patch")) => self.uncounted(&setup.start().await, call).await,
            Some(call) => self.owner_without_status(&setup.start().await, call).await,
        }
    }

    /// The copy itself takes nothing away: with all its rules the same VMs are served.
    async fn all_is_well(&self, _service: &Service) {
        self.player.create_vm("testvm", VmOptions::default()).await;
        self.player.start("testvm", "n1").await;
        self.player.create_bare_vmi("bare", VmOptions::default()).await;
        let sibling = self.namespace.sibling("b").await;
        Player::within(&sibling).create_vm("testvm", VmOptions::default()).await;
        self.port_named(&format!("testvm.{}", sibling.name)).await;
        eventually("both have a status, and the VM is bound", || async {
            let vm = self.player.vm("testvm").await.unwrap_or_default();
            let bare = self.player.vmi("bare").await.unwrap_or_default();
            let port = self.northbound.port(&self.name("testvm"));
            let bound = port.is_some_and(|port| port.option("requested-chassis") == Some("n1"));
            let have_status = [&vm, &bare].iter().all(|object| object["metadata"]["annotations"][PORTS].is_string());
            let events = self.namespace.events("testvm").await;
            if bound && have_status && !events.is_empty() {
                Ok(())
            } else {
                Err(format!("{bound} {vm} {bare} {events:?}"))
            }
        })
        .await;
    }

    /// A Lease with this holder; an empty name means no holder.
    async fn put_lease(&self, holder: &str, seconds: i32) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds},
        });
        let leases: Api<Lease> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let applied = leases.patch(LEASE, &PatchParams::apply("test").force(), &Patch::Apply(&lease)).await;
        applied.expect("a Lease");
    }

    fn with_webhooks(&self, setup: &Setup) -> Setup {
        let flags = webhook_flags("127.0.0.1:0", &self.namespace.name);
        setup.clone().flags(flags)
    }

    /// Without `get` or `create`: there is no certificate. Without `update`: one that cannot be used stays.
    async fn no_certificate(&self, setup: &Setup, call: Call) {
        let secrets: Api<Secret> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let update = call.2 == "update";
        if update {
            let labels = json!({"app.kubernetes.io/managed-by": "ovn-kubevirt"});
            let damaged =
                json!({"metadata": {"name": SECRET, "labels": labels}, "stringData": {"tls.crt": "nonsense"}});
            let damaged: Secret = serde_json::from_value(damaged).expect("a Secret");
            secrets.create(&PostParams::default(), &damaged).await.expect("a Secret");
        }
        let service = self.with_webhooks(setup).start().await;
        refused(&service, call).await;
        let found = secrets.get_opt(SECRET).await.expect("an answer").and_then(|secret| secret.data);
        assert_eq!(found.is_some_and(|data| data["tls.crt"].0 == b"nonsense"), update, "{call:?}");
        // All else works.
        self.player.create_vm("testvm", VmOptions::default()).await;
        self.port("testvm").await;
    }

    /// Without `get` or `patch` on one of the two configurations: it gets no CA, and the other does.
    async fn not_trusted(&self, setup: &Setup, call: Call) {
        let service = self.with_webhooks(setup).start().await;
        let _configurations = Configurations::new(&self.namespace, &service.webhooks().await);
        refused(&service, call).await;
        for kind in CONFIGURATIONS {
            let trusts = || async { !bundles(&self.namespace, kind).await.iter().any(String::is_empty) };
            if kind == call.1 {
                assert!(!trusts().await, "{call:?}");
            } else {
                let look = || async { if trusts().await { Ok(()) } else { Err(service.log()) } };
                eventually(&format!("the CA is in the {kind} without {call:?}"), look).await;
            }
        }
    }

    /// No VM gets a port, while the service is ready.
    async fn no_process_leads(&self, service: &Service, vm: &str, call: Call) {
        self.player.create_vm(vm, VmOptions::default()).await;
        let name = self.name(vm);
        holds_for(&format!("no port without {call:?}"), Duration::from_millis(500), || async {
            match self.northbound.port(&name) {
                None => Ok(()),
                Some(port) => Err(format!("{port:#?}\n{}", service.log())),
            }
        })
        .await;
    }

    /// Without `get` or `create`: where there is no Lease, there will be none.
    async fn never_leads(&self, service: &Service, call: Call) {
        refused(service, call).await;
        self.no_process_leads(service, "unled", call).await;
    }

    /// Without `update`: the process that created the Lease cannot renew it.
    async fn leads_not_for_long(&self, service: &Service, call: Call) {
        refused(service, call).await;
        eventually("it leads no longer", || async {
            let log = service.log();
            if log.contains("this process leads no longer") { Ok(()) } else { Err(log) }
        })
        .await;
        self.no_process_leads(service, "unled", call).await;
    }

    /// Without `list` or `watch`: that the Lease was given back is not learnt at once, as it is with them.
    async fn takes_over_late(&self, service: &Service, call: Call) {
        refused(service, call).await;
        self.put_lease("", 1).await;
        self.no_process_leads(service, "unled", call).await;
    }

    /// Without `list`: no object of that kind is known, and so no port is made or released. Without `get` on the namespace
    /// `kube-system`: the cluster is not known, to which the instance in the database may belong or not.
    async fn never_ready(&self, service: &Service, call: Call) {
        self.player.create_vm("testvm", VmOptions::default()).await;
        service.listening().await;
        refused(service, call).await;
        holds_for(&format!("not ready without {call:?}"), Duration::from_millis(300), || async {
            match service.http_get("/readyz").await {
                (503, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(self.northbound.ports(), [], "{call:?}");
    }

    /// Without `watch`: events after the start are not seen, while those of other watches are served.
    async fn news_unseen(&self, service: &Service, call: Call) {
        service.listening().await;
        refused(service, call).await;
        let (_, resource, _) = call;
        eventually(&format!("readiness shows {call:?}"), || async {
            match service.http_get("/readyz").await {
                (503, body) if body.contains(&format!("the watch of {resource} fails")) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let unseen = match resource {
            "virtualmachines" => {
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.name("unseen")
            }
            "virtualmachineinstances" => {
                self.player.create_bare_vmi("unseen", VmOptions::default()).await;
                self.name("unseen")
            }
            "namespaces" => {
                let sibling = self.namespace.sibling("b").await;
                Player::within(&sibling).create_vm("unseen", VmOptions::default()).await;
                format!("unseen.{}", sibling.name)
            }
            "pods" => {
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.player.start("unseen", "n1").await;
                self.name("unseen")
            }
            "nodes" => {
                let node = self.namespace.annotated_node("chassis-1").await;
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.player.start("unseen", &node).await;
                self.name("unseen")
            }
            "virtualmachineinstancemigrations" => {
                self.player.create_vm("unseen", VmOptions::default()).await;
                self.player.start("unseen", "n1").await;
                let migration = self.player.start_migration("unseen", "n2").await;
                self.player.bind_target(&migration).await;
                self.name("unseen")
            }
            "network-attachment-definitions" => {
                self.player.create_nad("net1", Some("ovn-default")).await;
                self.player.create_vm("unseen", VmOptions::default().nics([Nic::nad("red", "net1")])).await;
                format!("{}.net1.{}.ovn", self.name("unseen"), self.namespace.name)
            }
            other => panic!("{other} is not watched"),
        };
        if resource == "virtualmachines" {
            self.player.create_bare_vmi("seen", VmOptions::default()).await;
        } else {
            self.player.create_vm("seen", VmOptions::default()).await;
        }
        self.port("seen").await;
        holds_for(&format!("unseen without {call:?}"), Duration::from_millis(300), || async {
            match self.northbound.port(&unseen) {
                None => Ok(()),
                // The port exists, but the service does not know where the VM runs.
                Some(port) if resource == "pods" && port.options.is_empty() => Ok(()),
                // The service does not know that the node has another name, or that the VM moves.
                Some(port) if ["nodes", "virtualmachineinstancemigrations"].contains(&resource) => {
                    let requested = port.option("requested-chassis").unwrap_or_default();
                    if requested == "chassis-1" || requested.contains(',') { Err(format!("{port:#?}")) } else { Ok(()) }
                }
                Some(port) => Err(format!("{port:#?}")),
            }
        })
        .await;
    }

    /// Without `patch` or `create`: there is a port, and its owner does not learn of it by the annotation or by an Event.
    async fn owner_without_status(&self, service: &Service, call: Call) {
        let bare = call.1 == "virtualmachineinstances";
        if bare {
            self.player.create_bare_vmi("silent", VmOptions::default()).await;
        } else {
            self.player.create_vm("silent", VmOptions::default()).await;
        }
        self.port("silent").await;
        refused(service, call).await;
        let object = if bare { self.player.vmi("silent").await } else { self.player.vm("silent").await };
        let annotations = &object.expect("it is there")["metadata"]["annotations"];
        if call.1 == "events" {
            assert_eq!(self.namespace.events("silent").await, []);
        } else {
            assert!(annotations[PORTS].is_null(), "{call:?}: {annotations}");
            // A refusal is logged once, and the Event that was accepted is not repeated.
            holds_for("the refusal is one line in the log", Duration::from_secs(2), || async {
                let log = service.log();
                let lines = log
                    .lines()
                    .filter(|line| line.contains("the status could not be reported to the VM's owner"))
                    .count();
                if lines == 1 { Ok(()) } else { Err(log) }
            })
            .await;
            let reasons: Vec<String> =
                self.namespace.events("silent").await.into_iter().map(|(_, reason, _)| reason).collect();
            assert_eq!(reasons, ["AddressAssigned"]);
        }
    }

    /// Without `patch` on Events: that the same thing happened again is not counted, and all else is written.
    async fn uncounted(&self, service: &Service, call: Call) {
        const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
        self.player.create_vm("counted", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.10")).await;
        for address in ["10.16.0.10", "10.16.0.11", "10.16.0.10", "10.16.0.11"] {
            self.player.edit_template_annotation("counted", IP_ADDRESS, Some(address)).await;
            self.status("counted", &[&format!("\"{address}\"")]).await;
        }
        refused(service, call).await;
        assert_eq!(self.namespace.events("counted").await.len(), 2);
    }
}

/// The service logs the refused call.
pub(in super::super) async fn refused(service: &Service, (group, resource, verb): Call) {
    let refusal = format!("cannot {verb} resource \"{resource}\" in API group \"{group}\"");
    eventually(&format!("the log says: {refusal}"), || async {
        let log = service.log().replace('\\', "");
        if log.contains(&refusal) { Ok(()) } else { Err(log) }
    })
    .await;
}
