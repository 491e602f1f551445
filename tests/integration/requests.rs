//! Requests by people: empty, in the wrong place, too long, too often, and with text that forges a log line.

mod bounds;
mod places;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::support::stage::Builder;
use crate::support::{Nic, Player, Service, Stage, VmOptions, eventually};

const IP_ADDRESS: &str = "ovn.kubernetes.io/ip_address";
const SWITCH: &str = "ovn.kubernetes.io/logical_switch";

/// The switches `ovn-default` and `red`, and the NAD `net1` on `red`.
fn build(name: &str) -> Builder<'static> {
    Stage::build(name)
        .switch_with("red", &[("subnet", "10.17.0.0/24"), ("exclude_ips", "10.17.0.1")])
        .nad("net1", "red")
}

impl Stage {
    /// Objects of KubeVirt or Multus in the stage's namespace.
    fn objects(&self, group: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        Api::namespaced_with(self.namespace.client.clone(), &self.namespace.name, &resource)
    }

    /// Sets an annotation of one, or takes it off.
    async fn annotate(&self, objects: &Api<DynamicObject>, name: &str, key: &str, value: Option<&str>) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        objects.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The warnings about a VM.
    async fn warnings(&self, vm: &str) -> Vec<(String, String)> {
        let events = self.namespace.events(vm).await.into_iter();
        events.filter(|(kind, ..)| kind == "Warning").map(|(_, reason, message)| (reason, message)).collect()
    }

    /// A migration of any content.
    async fn create_vmim(&self, name: &str, spec: Value, status: Value) {
        let vmims = self.objects("kubevirt.io", "VirtualMachineInstanceMigration", "virtualmachineinstancemigrations");
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": name}, "spec": spec});
        vmims.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let patch = Patch::Merge(json!({"status": status}));
        vmims.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test]
async fn an_annotation_without_a_value_is_one_that_is_not_set() {
    let stage = build("empty").start().await;
    stage.namespace.annotate(SWITCH, Some("  ")).await;
    stage.player.create_nad("none", Some(" ")).await;
    let mut options = VmOptions::default().nic(Nic::nad("second", "net1")).nic(Nic::nad("third", "none"));
    for what in ["ip_address", "mac_address", "logical_switch", "ip_pool", "ip_family", "port_security", "port_vips"] {
        options = options.annotation(&format!("ovn.kubernetes.io/{what}"), "");
        options = options.annotation(&format!("second.ovn.kubernetes.io/{what}"), " ");
    }
    options = options.annotation("ovn-kubevirt.io/retain", "").annotation("gone.ovn.kubernetes.io/ip_address", "");
    stage.player.create_vm("testvm", options).await;
    assert_eq!(stage.port("testvm").await.switches, ["ovn-default"]);
    let second = format!("{}.net1.{}.ovn", stage.name("testvm"), stage.namespace.name);
    eventually("the second NIC has its port", || async { stage.northbound.port(&second).ok_or("not yet") }).await;
    stage.event("testvm", "AddressAssigned", &["network second"]).await;
    assert_eq!(stage.warnings("testvm").await, []);
    assert_eq!(stage.northbound.ports().len(), 2, "{}", stage.northbound.dump());
}

#[tokio::test]
async fn a_namespace_that_names_several_switches_gets_the_first_that_can_serve() {
    let stage = build("list").start().await;
    stage.northbound.add_switch("tiny", &[("subnet", "10.30.0.0/30")]);
    let full = ["0a:00:00:00:00:01 10.30.0.1", "0a:00:00:00:00:02 10.30.0.2"];
    stage.northbound.add_foreign_port("tiny", "printer", &full);
    // The obstacle shows that the service has read the namespace.
    stage.player.create_vm("witness", VmOptions::default().annotation(IP_ADDRESS, "10.99.0.9")).await;
    stage.status("witness", &["ovn-default"]).await;
    stage.namespace.annotate(SWITCH, Some("missing, tiny, red")).await;
    stage.status("witness", &["missing"]).await;
    stage.player.create_vm("one", VmOptions::default()).await;
    let one = stage.port("one").await;
    assert_eq!(one.switches, ["red"]);
    assert_eq!(stage.warnings("one").await, []);
    // The switch that was missing serves new ports, and moves no port.
    stage.northbound.add_switch("missing", &[("subnet", "10.31.0.0/24")]);
    // The repair of a port shows that the service has read the switch.
    stage.northbound.nbctl(&["lsp-set-addresses", &one.name, "unknown"]);
    stage.port_where("one", "is repaired", |port| port.addresses == one.addresses).await;
    stage.player.create_vm("two", VmOptions::default()).await;
    assert_eq!(stage.port("two").await.switches, ["missing"]);
    stage.player.start("one", "n1").await;
    let bound = stage.port_where("one", "is on n1", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!((bound.uuid, bound.switches, bound.addresses), (one.uuid, one.switches, one.addresses));
    // No switch of them is there: the status has the reason of the first, and any of them ends it.
    stage.namespace.annotate(SWITCH, Some("never, later")).await;
    stage.status("witness", &["named never"]).await;
    stage.player.create_vm("three", VmOptions::default()).await;
    stage.event("three", "SwitchNotFound", &["named never"]).await;
    stage.northbound.add_switch("later", &[("subnet", "10.32.0.0/24")]);
    assert_eq!(stage.port("three").await.switches, ["later"]);
}

#[tokio::test]
async fn a_migration_that_cannot_be_read_keeps_no_vm_from_being_served() {
    let mut stage = Stage::build("unreadable-vmim").northd().start().await;
    stage.create_vmim("numbered", json!({"vmiName": 5}), json!({"phase": "Running"})).await;
    stage.create_vmim("phased", json!({"vmiName": "testvm"}), json!({"phase": 7})).await;
    stage.create_vmim("forged", json!({"vmiName": "a\nb"}), json!({})).await;
    stage.restart().await;
    let logged = |name: &str| {
        let log = stage.service.log();
        log.lines().filter(|line| line.contains(&format!("{}/{name} cannot be read", stage.namespace.name))).count()
    };
    for name in ["numbered", "phased", "forged"] {
        eventually("the log says so", || async { if logged(name) == 1 { Ok(()) } else { Err(stage.service.log()) } })
            .await;
    }
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.start("testvm", "n1").await;
    let migration = stage.player.start_migration("testvm", "n2").await;
    stage.player.bind_target(&migration).await;
    let both = |options: Option<&str>| options == Some("n1,n2");
    stage.port_where("testvm", "is open on n2", |port| both(port.option("requested-chassis"))).await;
    stage.player.fail(&migration).await;
    stage.port_where("testvm", "is on n1 alone", |port| port.option("requested-chassis") == Some("n1")).await;
    assert_eq!(["numbered", "phased", "forged"].map(logged), [1, 1, 1]);
    assert_eq!(stage.service.http_get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_chassis_annotation_with_two_names_binds_no_port_and_is_in_the_status() {
    let stage = build("chassis-list").start().await;
    let node = stage.namespace.create_node("a", &[("ovn-kubevirt.io/chassis", "n1,evil")]).await;
    stage.player.create_vm("testvm", VmOptions::default()).await;
    stage.player.start("testvm", &node).await;
    stage.event("testvm", "InvalidChassisAnnotation", &[&node, "n1,evil", "one chassis"]).await;
    let port = stage.port("testvm").await;
    assert_eq!(port.option("requested-chassis"), None);
    let words = format!("of the node {node} is \\\"n1,evil\\\"");
    let log = stage.service.log();
    let lines =
        log.lines().filter(|line| line.contains("which is not a chassis name. ") && !line.contains("reason=")).count();
    assert_eq!(lines, 1, "{words}: {log}");
    let nodes: Api<Node> = Api::all(stage.namespace.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"ovn-kubevirt.io/chassis": " hv-7 "}}}));
    nodes.patch(&node, &PatchParams::default(), &patch).await.unwrap();
    stage.port_where("testvm", "is on hv-7", |port| port.option("requested-chassis") == Some("hv-7")).await;
}

#[tokio::test]
async fn a_vm_with_dots_in_a_namespace_called_ovn_leaves_the_others_their_names() {
    let stage = build("dots").start().await;
    let namespace = &stage.namespace.name;
    let labels = json!({(crate::support::cluster::TEST_LABEL): stage.namespace.label});
    let namespaces: Api<Namespace> = Api::all(stage.namespace.client.clone());
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": "ovn", "labels": labels}})).unwrap();
    if namespaces.create(&PostParams::default(), &object).await.is_err() {
        // An API server that was used before.
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        namespaces.patch("ovn", &PatchParams::default(), &patch).await.unwrap();
    }
    let name = format!("x.{namespace}.net1.{namespace}");
    Player::new(stage.namespace.client.clone(), "ovn").apply_vm(&name, VmOptions::default()).await;
    let dotted = format!("{name}.ovn.default~0");
    let dotted = eventually("the VM in ovn has its port", || async {
        stage.northbound.port(&dotted).ok_or_else(|| stage.northbound.dump())
    })
    .await;
    assert_eq!(dotted.external_id("ovn-kubevirt.io/vm"), Some(&*format!("ovn/{name}")));
    // The name on a NAD is the one that its CNI expects.
    stage.player.create_vm("x", VmOptions::default().nics([Nic::nad("second", "net1")])).await;
    let plain = format!("{name}.ovn");
    let port = eventually("the VM on the NAD has its port", || async {
        stage.northbound.port(&plain).ok_or_else(|| stage.northbound.dump())
    })
    .await;
    assert_eq!(port.external_id("ovn-kubevirt.io/vm"), Some(&*format!("{namespace}/x")));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let mut command = std::process::Command::new(crate::support::service::binary());
    command.args(["run", "--no-lease", "--kubeconfig", "/nowhere/kubeconfig", "--http", "127.0.0.1:0"]);
    let variables = [
        "NB",
        "INSTANCE",
        "NB_PROBE_INTERVAL",
        "NB_LEADER_ONLY",
        "CA_CERT",
        "NB_VERIFY_HOSTNAME",
        "CERTIFICATE",
        "PRIVATE_KEY",
        "DEFAULT_SWITCH",
        "NAMESPACE_SELECTOR",
        "LEASE",
        "LEASE_DURATION",
        "NO_LEASE",
        "HTTP",
        "ACTIVATION_STRATEGY",
        "SB",
        "MAC_PREFIX",
        "SWITCH_NAMESPACES",
        "ALLOW",
        "MAX_NICS",
        "MAX_RETAIN",
        "DEFAULT_RETAIN",
        "ADDRESS_REST",
        "LOG_JSON",
    ];
    command.envs(variables.map(|name| (format!("OVN_KUBEVIRT_{name}"), if name.len() % 2 == 0 { "" } else { " " })));
    let output = command.output().expect("the service runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("/nowhere/kubeconfig"), "{text}");
    // A flag that is given without a value is a mistake all the same.
    let output = Service::command_line(&["run", "--no-lease", "--default-switch", " "]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("--default-switch"), "{text}");
}
