//! The reasons to refuse `kubectl apply` of a VM, and those to warn only.

use super::*;
use crate::support::objects::{bare_vmi, vm, vmi_of};
use crate::support::{Binding, Nic, VmOptions};

/// The API server's answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// The message of the Status object, if it is one.
    message: String,
    warnings: Vec<String>,
}

impl Answer {
    /// It is stored, without a warning.
    #[track_caller]
    fn passes(&self) {
        assert!((200..300).contains(&self.status) && self.warnings.is_empty(), "{self:?}");
    }

    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        assert!(self.status >= 400, "{self:?}");
        words.iter().for_each(|words| assert!(self.message.contains(words), "without \"{words}\": {self:?}"));
    }

    #[track_caller]
    fn warns(&self, words: &[&str]) {
        assert!((200..300).contains(&self.status), "{self:?}");
        let warnings = self.warnings.join("\n");
        words.iter().for_each(|words| assert!(warnings.contains(words), "without \"{words}\": {self:?}"));
    }
}

/// A service with webhooks that the API server calls.
struct Reviewed {
    stage: Hooked,
    _service: Service,
}

impl Deref for Reviewed {
    type Target = Hooked;

    fn deref(&self) -> &Hooked {
        &self.stage
    }
}

impl Reviewed {
    async fn on(prepared: Prepared) -> Self {
        let mut stage = Hooked::on(prepared).await;
        let service = stage.setup("150s").start().await;
        stage.call(&service).await;
        stage.called().await;
        Self { stage, _service: service }
    }

    async fn new(name: &str) -> Self {
        Self::on(Stage::build(name).prepare().await).await
    }

    async fn send(&self, method: &str, path: &str, object: &Value) -> Answer {
        let path = format!("/apis/kubevirt.io/v1/namespaces/{}/{path}", self.namespace.name);
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = hyper::Request::builder().method(method).uri(path).header("content-type", kind);
        let body = serde_json::to_vec(object).expect("JSON");
        let response =
            self.namespace.client.send(request.body(body.into()).expect("a request")).await.expect("an answer");
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|warning| warning.to_str().expect("text").to_owned()).collect();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status, message: body["message"].as_str().unwrap_or_default().to_owned(), warnings }
    }

    async fn apply(&self, name: &str, options: &VmOptions) -> Answer {
        self.send("POST", "virtualmachines", &vm(name, options)).await
    }

    async fn edit(&self, name: &str, patch: Value) -> Answer {
        self.send("PATCH", &format!("virtualmachines/{name}"), &patch).await
    }

    /// Sets annotations of the template.
    async fn annotate(&self, name: &str, annotations: Value) -> Answer {
        self.edit(name, json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await
    }
}

fn with(key: &str, value: &str) -> VmOptions {
    VmOptions::default().annotation(&format!("ovn.kubernetes.io/{key}"), value)
}

#[tokio::test]
async fn each_fault_of_the_owner_is_refused_with_the_words_of_the_event() {
    let stage = Reviewed::new("refused").await;
    stage.make("holder").await;
    let held =
        stage.northbound.port(&stage.name("holder")).expect("the port").addresses.first().expect("addresses").clone();
    let (mac, ip) = held.split_once(' ').expect("MAC and address");
    let holder = format!("{}/holder", stage.namespace.name);
    for (options, words) in [
        (with("ip_address", "10.16.0"), &["network default", "10.16.0", "ip_address"][..]),
        (with("ip_address", "10.99.0.9"), &["10.99.0.9", "10.16.0.0/16", "ovn-default"]),
        (with("ip_address", ip), &[ip, &holder]),
        (with("ip_address", "10.16.0.1"), &["10.16.0.1", "--allow of ovn-kubevirt", "\"excluded\""]),
        (
            VmOptions::default().annotation("ovn-kubevirt.io/retain", "forever"),
            &["\"forever\"", "--max-retain", "720h"],
        ),
        (with("mac_address", mac), &[mac, &holder]),
        (with("mac_address", "0a:58"), &["0a:58"]),
        (
            with("mac_address", "0a:58:00:00:00:09").mac("0a:58:00:00:00:08"),
            &["0a:58:00:00:00:09", "0a:58:00:00:00:08"],
        ),
        (with("ip_pool", "10.99.0.1..10.99.0.9"), &["10.99.0.1..10.99.0.9"]),
        (with("ip_family", "both"), &["ip_family", "\"both\"", "dual"]),
        (with("ip_family", "dual"), &["ip_family", "IPv6", "ovn-default", "10.16.0.0/16"]),
        (with("port_vips", "10.16.0"), &["port_vips", "\"10.16.0\""]),
        (with("port_vips", "10.16.0.50"), &["port_vips", "network default", "--allow of ovn-kubevirt", "\"vips\""]),
        (with("qos", "5"), &["ovn.kubernetes.io/qos"]),
        (with("dhcp", "yes"), &["ovn.kubernetes.io/dhcp", "\"yes\""]),
        (with("dhcp", "true"), &["network default", "bridge", "virt-launcher's own DHCP server"]),
        (
            with("dhcp-v4-options", "mtu=70000").binding(Binding::ManagedTap),
            &["ovn.kubernetes.io/dhcp-v4-options", "mtu", "70000", "65535"],
        ),
        (with("dhcp-v6-options", "foo=1").binding(Binding::ManagedTap), &["ovn.kubernetes.io/dhcp-v6-options", "foo"]),
        // It cannot be sent with the lease time of the switch.
        (with("dhcp-v4-options", "T1=5000").binding(Binding::ManagedTap), &["T1", "5000", "3600"]),
        (
            VmOptions::default().annotation("nosuch.ovn.kubernetes.io/ip_address", "10.16.0.9"),
            &["nosuch.ovn.kubernetes.io/ip_address"],
        ),
    ] {
        stage.apply("refused", &options).await.refuses(words);
    }
    assert!(stage.player.vm("refused").await.is_none(), "nothing is stored");
    stage.apply("refused", &with("ip_address", "10.16.0.9")).await.passes();
    stage.port("refused").await;
}

#[tokio::test]
async fn a_vm_with_a_field_that_cannot_be_read_is_refused_once() {
    let stage = Reviewed::new("mistyped").await;
    let mut mistyped = vm("mistyped", &VmOptions::default());
    mistyped["spec"]["template"]["metadata"]["annotations"] = json!({"ovn.kubernetes.io/ip_address": 7});
    stage.send("POST", "virtualmachines", &mistyped).await.refuses(&["cannot be read", "Invalid type integer"]);
    assert!(stage.player.vm("mistyped").await.is_none(), "nothing is stored");
}

#[tokio::test]
async fn a_fault_of_the_operator_is_a_warning_and_the_vm_is_stored() {
    let prepared = Stage::build("warned").switch_with("bare", &[]).nad("net1", "nowhere").nad("net2", "bare");
    let stage = Reviewed::on(prepared.prepare().await).await;
    let nics = |nad| VmOptions::default().nics([Nic::nad("second", nad)]);
    stage.apply("one", &nics("net1")).await.warns(&["network second", "nowhere"]);
    stage.apply("two", &nics("net2")).await.warns(&["network second", "bare", "subnet"]);
    assert!(stage.player.vm("one").await.is_some());
}

#[tokio::test]
async fn an_edit_is_refused_only_for_the_problems_that_it_adds() {
    let prepared = Stage::build("edited").prepare().await;
    // Made while no webhook was there.
    let faulty = with("ip_address", "10.99.0.9").annotation("nosuch.ovn.kubernetes.io/ip_address", "10.16.0.9");
    prepared.player.create_vm("faulty", faulty).await;
    let stage = Reviewed::on(prepared).await;
    let labels = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"runStrategy": "Halted"}});
    // An edit that concerns no port is not reviewed.
    stage.edit("faulty", labels).await.passes();
    let address = "ovn.kubernetes.io/ip_address";
    stage.annotate("faulty", json!({address: "10.98.0.9"})).await.refuses(&["10.98.0.9"]);
    stage.annotate("faulty", json!({address: "10.16.0.9"})).await.warns(&["nosuch.ovn.kubernetes.io/ip_address"]);
    // Its port shows that the API server's watch cache has the edit. With an older object in there, the API server would
    // ask about the next patch twice, and hand on the warning about the object that it dropped.
    assert!(stage.port("faulty").await.addresses.contains("0a:58:0a:10:00:09 10.16.0.9"));
    stage.annotate("faulty", json!({"nosuch.ovn.kubernetes.io/ip_address": null})).await.passes();
    // A guest that runs keeps its lease, and its owner may still name another address for the next start.
    stage.player.start("faulty", "n1").await;
    stage.annotate("faulty", json!({address: "10.16.0.10"})).await.passes();
    stage.annotate("faulty", json!({address: "10.16.0"})).await.refuses(&["10.16.0"]);
    stage.player.delete_vm("faulty").await;
    stage.port_gone("faulty").await;
}

#[tokio::test]
async fn a_bare_vmi_is_refused_and_the_vmi_of_a_vm_is_not() {
    let prepared = Stage::build("vmis").prepare().await;
    prepared.player.create_vm("faulty", with("ip_address", "10.99.0.9")).await;
    let stage = Reviewed::on(prepared).await;
    let bare = bare_vmi("bare", &with("ip_address", "10.99.0.9"));
    stage.send("POST", "virtualmachineinstances", &bare).await.refuses(&["10.99.0.9"]);
    let of_vm = vmi_of(&stage.player.vm("faulty").await.expect("the VM"));
    stage.send("POST", "virtualmachineinstances", &of_vm).await.warns(&["10.99.0.9"]);
}

#[tokio::test]
async fn a_dry_run_gets_the_same_answer_and_writes_nothing() {
    let stage = Reviewed::new("dry").await;
    let path = "virtualmachines?dryRun=All";
    stage.send("POST", path, &vm("dry", &with("ip_address", "10.99.0.9"))).await.refuses(&["10.99.0.9"]);
    stage.send("POST", path, &vm("dry", &with("ip_address", "10.16.0.9"))).await.passes();
    assert_eq!(stage.northbound.ports(), []);
}

#[tokio::test]
async fn of_two_vms_applied_at_once_for_one_address_one_gets_it_and_the_other_is_refused_with_the_reason() {
    let stage = Reviewed::new("at-once").await;
    let options = with("ip_address", "10.16.0.9");
    let (one, two) = tokio::join!(stage.apply("one", &options), stage.apply("two", &options));
    let refused: Vec<&Answer> = [&one, &two].into_iter().filter(|answer| answer.status >= 400).collect();
    match refused[..] {
        // The webhook saw the first before the second came.
        [refused] => refused.refuses(&["10.16.0.9"]),
        [] => {
            eventually("one of them has the address, and the other hears of the conflict", || async {
                let has = |vm: &str| stage.northbound.port(&stage.name(vm)).is_some();
                let loser = if has("one") { "two" } else { "one" };
                let events = stage.namespace.events(loser).await;
                let heard = events.iter().any(|(_, reason, _)| reason == "AddressConflict");
                if has("one") != has("two") && heard { Ok(()) } else { Err(format!("{events:?}")) }
            })
            .await;
        }
        _ => panic!("{one:?} {two:?}"),
    }
}

#[tokio::test]
async fn while_the_service_cannot_know_a_vm_is_stored_with_a_warning() {
    let mut prepared = Stage::build("unknown").prepare().await;
    let gate = prepared.gate_to_northbound().await;
    let stage = Reviewed::on(prepared).await;
    gate.shut();
    eventually("it says that it cannot check", || async {
        let answer = stage.send("POST", "virtualmachines?dryRun=All", &vm("a", &with("ip_address", "x"))).await;
        let warned = answer.status < 300 && answer.warnings.join(" ").contains("cannot check");
        if warned { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    gate.open();
    eventually("it checks again", || async {
        let answer = stage.send("POST", "virtualmachines?dryRun=All", &vm("a", &with("ip_address", "x"))).await;
        if answer.status >= 400 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}
