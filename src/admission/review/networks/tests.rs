//! The annotations as virt-controller writes them, and the ports merged into them.

use super::*;

/// Two NICs on one NAD, as virt-controller writes them for the networks `red` and `blue`.
const TWO_ON_ONE_NAD: &str = r#"[{"name":"net1","namespace":"default","mac":"02:aa:bb:cc:dd:01","interface":"podb1f51a511f1"},{"name":"net1","namespace":"default","interface":"pod16477688c0e"}]"#;

fn nad(name: &str) -> NadKey {
    NadKey::new("default", name)
}

fn on(name: &str, nad: &NadKey) -> PodNetwork {
    PodNetwork { name: name.to_owned(), nad: Some(nad.clone()), default: false }
}

fn pod_network() -> PodNetwork {
    PodNetwork { name: "default".to_owned(), nad: None, default: false }
}

fn port(network: &str, ips: &[&str]) -> PodPort {
    PodPort {
        network: network.to_owned(),
        port: format!("multi.default.{network}"),
        mac: "0a:58:0a:10:00:02".to_owned(),
        ips: ips.iter().map(ToString::to_string).collect(),
        ..PodPort::default()
    }
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Merges ports into a pod with these annotations, and asserts that a second pass makes no change.
fn settled(
    before: &BTreeMap<String, String>,
    networks: &[PodNetwork],
    default_nad: Option<&NadKey>,
    ports: &[PodPort],
) -> BTreeMap<String, String> {
    let pass = |annotations: &BTreeMap<String, String>| {
        let elements = elements(annotations.get(NETWORKS).map(String::as_str)).expect("a list");
        let plugged = plugged(networks, &elements, "default", default_nad);
        let with_port = |plugged: Plugged| {
            let port = ports.iter().find(|port| port.network == plugged.network)?;
            Some((plugged, port.clone()))
        };
        let ports: Vec<_> = plugged.into_iter().filter_map(with_port).collect();
        merged(annotations, elements, &ports)
    };
    let mut after = before.clone();
    after.extend(pass(before).into_iter().map(|(key, text)| (key.to_owned(), text)));
    assert_eq!(pass(&after), BTreeMap::new(), "a second pass changes nothing");
    after
}

fn json(annotations: &BTreeMap<String, String>, key: &str) -> Value {
    serde_json::from_str(&annotations[key]).expect("JSON")
}

#[test]
fn two_nics_on_one_nad_each_get_their_own_port() {
    let networks = [pod_network(), on("red", &nad("net1")), on("blue", &nad("net1"))];
    let before = annotations(&[(NETWORKS, TWO_ON_ONE_NAD), ("kubevirt.io/domain", "multi")]);
    let after = settled(&before, &networks, None, &[port("blue", &["10.0.0.3/24"]), port("red", &["10.0.0.2/24"])]);
    let element = |network: &str, interface: &str, ip: &str| {
        json!({
            "name": "net1", "namespace": "default", "interface": interface, "mac": "0a:58:0a:10:00:02", "ips": [ip],
            "cni-args": {"ovnPort": format!("multi.default.{network}"), "mac": "0a:58:0a:10:00:02", "ips": [ip]},
        })
    };
    let expected =
        json!([element("red", "podb1f51a511f1", "10.0.0.2/24"), element("blue", "pod16477688c0e", "10.0.0.3/24")]);
    assert_eq!(json(&after, NETWORKS), expected);
    assert_eq!(after.len(), 2, "the other annotations stay, and none comes: {after:?}");
}

#[test]
fn an_element_of_a_network_that_is_not_ours_stays_as_it_is() {
    let networks = [on("red", &nad("net1")), on("blue", &nad("net1"))];
    let after = settled(&annotations(&[(NETWORKS, TWO_ON_ONE_NAD)]), &networks, None, &[port("blue", &[])]);
    let elements = json(&after, NETWORKS);
    let before: Value = serde_json::from_str(TWO_ON_ONE_NAD).expect("JSON");
    assert_eq!(elements[0], before[0]);
    // A port with a MAC alone has no addresses.
    let arguments = json!({"ovnPort": "multi.default.blue", "mac": "0a:58:0a:10:00:02"});
    assert_eq!((&elements[1]["cni-args"], elements[1].get("ips")), (&arguments, None));
}

#[test]
fn members_by_others_stay_in_an_element_and_outdated_members_are_removed() {
    let text = r#"[{"name":"net1","namespace":"default","interface":"podb1f51a511f1","ips":["10.0.0.9/24"],
        "bandwidth":{"ingressRate":1},"cni-args":{"vlan":7,"ips":["10.0.0.9/24"],"ovnPort":"another"}}]"#;
    let networks = [on("red", &nad("net1"))];
    let after = settled(&annotations(&[(NETWORKS, text)]), &networks, None, &[port("red", &[])]);
    let expected = json!([{
        "name": "net1", "namespace": "default", "interface": "podb1f51a511f1", "mac": "0a:58:0a:10:00:02",
        "bandwidth": {"ingressRate": 1},
        "cni-args": {"vlan": 7, "mac": "0a:58:0a:10:00:02", "ovnPort": "multi.default.red"},
    }]);
    assert_eq!(json(&after, NETWORKS), expected);
}

#[test]
fn a_hot_plug_that_rewrites_the_annotation_is_merged_again() {
    let networks = [on("red", &nad("net1")), on("blue", &nad("net1"))];
    let ports = [port("red", &["10.0.0.2/24"]), port("blue", &["10.0.0.3/24"])];
    let first = r#"[{"name":"net1","namespace":"default","interface":"podb1f51a511f1"}]"#;
    let mut pod = settled(&annotations(&[(NETWORKS, first)]), &networks, None, &ports);
    assert_eq!(json(&pod, NETWORKS).as_array().map(Vec::len), Some(1), "blue is not plugged yet");
    for _ in 0..2 {
        pod.insert(NETWORKS.to_owned(), TWO_ON_ONE_NAD.to_owned());
        pod = settled(&pod, &networks, None, &ports);
        let of = |at: usize| json(&pod, NETWORKS)[at]["cni-args"]["ovnPort"].clone();
        assert_eq!((of(0), of(1)), ("multi.default.red".into(), "multi.default.blue".into()));
    }
}

#[test]
fn interfaces_of_older_instances_are_matched_by_order_if_that_is_unambiguous() {
    let networks = [on("red", &nad("net1")), on("other", &nad("net2")), on("blue", &nad("net1"))];
    let element = |name: &str, interface: &str| json!({"name": name, "namespace": "default", "interface": interface});
    let list = |elements: &[Value]| -> Vec<Map<String, Value>> {
        elements.iter().map(|element| element.as_object().expect("an object").clone()).collect()
    };
    let numbered = list(&[element("net1", "net1"), element("net2", "net2"), element("net1", "net3")]);
    let interfaces = |elements: &[Map<String, Value>]| {
        let plugged = plugged(&networks, elements, "default", None);
        plugged.into_iter().map(|plugged| (plugged.network, plugged.interface)).collect::<Vec<_>>()
    };
    let pair = |network: &str, interface: &str| (network.to_owned(), interface.to_owned());
    assert_eq!(interfaces(&numbered), [pair("red", "net1"), pair("other", "net2"), pair("blue", "net3")]);
    // One of the two on net1 is not plugged, and the pod does not show which.
    assert_eq!(interfaces(&numbered[..2]), [pair("other", "net2")]);
    // A NIC that was plugged later has the newer kind of name.
    let mixed = list(&[element("net1", "net1"), element("net1", "pod16477688c0e")]);
    assert_eq!(interfaces(&mixed), [pair("red", "net1"), pair("blue", "pod16477688c0e")]);
}

#[test]
fn a_nad_takes_the_default_networks_place_without_an_interface_name() {
    let element = |name: &str, network: &str| {
        json!([{
            "name": name, "namespace": "default", "mac": "0a:58:0a:10:00:02", "ips": ["10.0.0.2/24"],
            "cni-args": {"ovnPort": format!("multi.default.{network}"), "mac": "0a:58:0a:10:00:02",
                "ips": ["10.0.0.2/24"]},
        }])
    };
    // `multus.default`: virt-controller writes the name as the VM has it.
    let default = PodNetwork { default: true, ..on("main", &nad("net1")) };
    for text in ["net1", "default/net1", r#"[{"name":"net1","interface":"eth7"}]"#] {
        let before = annotations(&[(DEFAULT_NETWORK, text)]);
        let after = settled(&before, std::slice::from_ref(&default), None, &[port("main", &["10.0.0.2/24"])]);
        assert_eq!(json(&after, DEFAULT_NETWORK), element("net1", "main"), "{text}");
    }
    // `--default-network`.
    let after = settled(&BTreeMap::new(), &[pod_network()], Some(&nad("ovn")), &[port("default", &["10.0.0.2/24"])]);
    assert_eq!(json(&after, DEFAULT_NETWORK), element("ovn", "default"));
    // Without it, the cluster's own CNI makes the interface.
    let after = settled(&BTreeMap::new(), &[pod_network()], None, &[port("default", &["10.0.0.2/24"])]);
    assert_eq!(after, BTreeMap::new());
}

#[test]
fn a_list_that_virt_controller_would_not_write_is_named() {
    for text in ["net1,net2", "{}", r#"["net1"]"#] {
        let error = elements(Some(text)).expect_err(text).to_string();
        assert!(error.contains(NETWORKS) && error.contains("virt-controller"), "{error}");
    }
    assert_eq!(elements(Some(" ")), Ok(Vec::new()));
}

#[test]
fn an_interface_of_a_running_pod_stays_on_its_nad_while_virt_controller_plugs_another() {
    let of = |text: &str| elements(Some(text)).expect("a list");
    let (data, more) = (pod_interface("data"), pod_interface("more"));
    let stored = format!(r#"[{{"name":"net1","namespace":"default","interface":"{data}","mac":"x","cni-args":{{}}}}]"#);
    let written = format!(
        r#"[{{"name":"net2","namespace":"default","interface":"{data}"}},{{"name":"net1","namespace":"default","interface":"{more}"}}]"#
    );
    let networks = [on("data", &nad("net2")), on("more", &nad("net1"))];
    let names = |elements: &[Map<String, Value>]| -> Vec<Value> {
        elements.iter().map(|element| element["name"].clone()).collect()
    };
    let mut merged_in = of(&written);
    stay_plugged(
        &networks,
        &mut merged_in,
        &of(&stored),
        |network, nad| (network, &*nad.name) == ("data", "net1"),
        "default",
    );
    assert_eq!(names(&merged_in), ["net1", "net1"]);
    // The pod is stored so, with or without a port that is merged in.
    let changed = merged(&annotations(&[(NETWORKS, &written)]), merged_in, &[]);
    assert_eq!(names(&of(&changed[NETWORKS])), ["net1", "net1"]);
    // A NIC that has no port there is not ours, and one that the pod has not is new.
    for (stored, has_a_port) in [(stored.as_str(), false), ("[]", true)] {
        let mut elements = of(&written);
        stay_plugged(&networks, &mut elements, &of(stored), |_, _| has_a_port, "default");
        assert_eq!(elements, of(&written));
    }
}
