//! The live page, in a real browser, on the real service.

use std::path::Path;

use serde_json::{Value, json};

use super::{API, IP_ADDRESS, RETAIN};
use crate::support::browser::Area;
use crate::support::{Browser, Page, Screen, Service, Stage, VmOptions};

const PHONE: Screen = Screen { width: 360, height: 740, dark: false };
const LAPTOP: Screen = Screen { width: 1280, height: 800, dark: false };
const WALL: Screen = Screen { width: 2560, height: 1440, dark: false };

/// A name that would be markup, and a script, if a page read it as such.
const MARKUP: &str = "<img src=x onerror=document.title=1>";

async fn url(service: &Service) -> String {
    format!("http://{}/", service.api().await)
}

/// A network with every use of addresses: VMs `vm-0` to `vm-5` on three nodes, a router, ports of others, an address of
/// two ports, one that is retained and one that rests; and the VM `testvm`, which asks for an address of another.
async fn furnished(name: &str) -> Stage {
    let builder = Stage::build(name)
        .northd()
        .reads_southbound()
        .switch_with("ovn-default", &[("subnet", "10.16.0.0/16"), ("exclude_ips", "10.16.0.40..10.16.0.55")])
        .switch_with("dual", &[("subnet", "10.17.0.0/24"), ("ipv6_prefix", "fd00:17::")])
        .switch_with(MARKUP, &[])
        .router("dual", &["10.17.0.1/24"])
        .flags(API)
        .flags(["--address-rest", "1h", "--max-retain", "forever"]);
    let nodes = ["n1", "n2", "n3"];
    let builder = nodes
        .iter()
        .fold(builder, |builder, node| builder.chassis(&format!("chassis-{node}"), &format!("{node}.example")));
    let stage = builder.start().await;
    for (index, node) in nodes.into_iter().cycle().take(6).enumerate() {
        let vm = format!("vm-{index}");
        stage.make(&vm).await;
        stage.player.start(&vm, node).await;
    }
    for vm in ["kept", "gone"] {
        let retain = if vm == "kept" { "forever" } else { "0s" };
        stage.player.create_vm(vm, VmOptions::default().annotation(RETAIN, retain)).await;
        stage.port(vm).await;
        stage.player.delete_vm(vm).await;
    }
    stage.port_gone("gone").await;
    for host in [10, 11, 12, 20, 21, 90] {
        let address = format!("0a:00:00:00:00:{host:02x} 10.16.0.{host}");
        stage.northbound.add_foreign_port("ovn-default", &format!("{MARKUP}{host}"), &[&address]);
    }
    stage.northbound.add_foreign_port("ovn-default", "intruder", &["0a:00:00:00:01:01 10.16.0.4"]);
    stage.player.create_vm("testvm", VmOptions::default().annotation(IP_ADDRESS, "10.16.0.3")).await;
    stage.event("testvm", "AddressConflict", &["10.16.0.3"]).await;
    stage
}

/// Finds a text, and goes to its address on the map.
async fn go_to(page: &Page, text: &str) {
    page.eval("document.activeElement.blur()").await;
    page.press("/").await;
    page.eval("document.activeElement.select()").await;
    page.write(text).await;
    page.shows("#found-list", &[text]).await;
    page.press("Enter").await;
}

#[tokio::test]
async fn a_vm_is_found_by_its_address_and_a_change_arrives_without_a_reload() {
    let stage = furnished("page-map").await;
    let browser = Browser::start().await;
    let page = browser.open(&url(&stage.service).await, LAPTOP).await;
    let vm = |name: &str| format!("{}/{name}", stage.namespace.name);
    page.shows("#link", &["Live"]).await;
    page.shows("#process", &["This process leads and writes.", "Waits for Nothing.", "Southbound in sync"]).await;
    page.shows("#subnets", &["ovn-default 10.16.0.0/16", "dual 10.17.0.0/24", "1 conflict"]).await;
    // The first subnet by name is on the map. By the keyboard alone: find an address of the other, and go there.
    page.shows("#map", &["Addresses of dual, 10.17.0.0/24"]).await;
    go_to(&page, "10.16.0.2").await;
    page.shows("#found-list", &[&vm("vm-0"), "10.16.0.2", "0a:58:0a:10:00:02", "on chassis-n1"]).await;
    page.shows("#map", &["Addresses of ovn-default, 10.16.0.0/16", "one address in a cell"]).await;
    page.shows("#readout", &["10.16.0.2: VM", &vm("vm-0")]).await;
    // The legend has each use that occurs, with its number.
    let legend =
        page.shows("#legend", &["VM 5", "foreign 6", "conflict 1", "excluded 16", "resting 1", "retained 1"]).await;
    assert!(legend.contains("first 1"), "{legend}");
    // From cell to cell.
    page.press("ArrowRight").await;
    page.shows("#readout", &["10.16.0.3: VM", &vm("vm-1")]).await;
    page.press("ArrowRight").await;
    page.shows("#readout", &["10.16.0.4: conflict", &vm("vm-2"), "port intruder"]).await;
    page.press("ArrowLeft").await;
    page.press("Enter").await;
    page.shows("#vm", &[&vm("vm-1"), "holds 10.16.0.3 with the MAC 0a:58:0a:10:00:03", "Waits for"]).await;
    page.press("Escape").await;
    page.shows_where("#vm", "nothing", str::is_empty).await;

    page.eval("window.isTheSamePage = true").await;
    page.shows_where("#changes", "no VM named late", |text| !text.contains("late")).await;
    let port = stage.make("late").await;
    let (mac, address) = port.addresses.first().and_then(|nic| nic.split_once(' ')).expect("a MAC and an address");
    page.shows("#changes", &[&vm("late"), address, "stopped"]).await;
    page.shows("#legend", &["VM 6"]).await;
    stage.player.start("late", "n3").await;
    page.shows("#changes", &[&vm("late"), "on chassis-n3"]).await;
    for text in ["late", "n3", mac, address] {
        go_to(&page, text).await;
        page.shows("#found-list", &[&vm("late"), address]).await;
    }
    assert_eq!(page.eval("window.isTheSamePage").await, true);
    assert_eq!(page.errors().await, [""; 0]);
}

#[tokio::test]
async fn a_migration_runs_through_its_steps_and_a_problem_has_its_remedy() {
    let stage = furnished("page-moves").await;
    let browser = Browser::start().await;
    let page = browser.open(&url(&stage.service).await, LAPTOP).await;
    let vm = |name: &str| format!("{}/{name}", stage.namespace.name);
    page.shows("#migrations", &["No migration runs."]).await;
    let problem = page.shows("#problems", &[&vm("testvm"), "AddressConflict", "for the VM's owner"]).await;
    assert!(problem.contains("10.16.0.3 on the logical switch ovn-default is held by the VM"), "{problem}");
    assert!(problem.contains("Choose another address"), "{problem}");

    let step = "#migration-list [aria-current=step]";
    let migration = stage.player.start_migration("vm-0", "n2").await;
    page.shows("#migrations", &["1 migration runs.", &vm("vm-0"), "from n1", &migration.name]).await;
    page.shows(step, &["waiting"]).await;
    stage.player.bind_target(&migration).await;
    page.shows("#migrations", &["from n1 to n2"]).await;
    page.shows(step, &["open"]).await;
    stage.player.target_running(&migration).await;
    stage.player.migration_scheduled(&migration).await;
    stage.player.hand_off(&migration).await;
    stage.player.target_ready(&migration).await;
    stage.player.migration_running(&migration).await;
    page.shows("#migrations", &["KubeVirt: Running"]).await;
    stage.player.domain_ready(&migration).await;
    page.shows(step, &["arrived"]).await;
    stage.player.succeed(&migration).await;
    page.shows("#migrations", &["No migration runs.", "It has ended: on chassis-n2."]).await;

    // The remedy is taken, and the problem goes.
    stage.player.edit_template_annotation("testvm", IP_ADDRESS, Some("10.16.0.200")).await;
    page.shows_where("#problems", "no problem of testvm", |text| !text.contains("testvm")).await;
    assert_eq!(page.errors().await, [""; 0]);
}

#[tokio::test]
async fn names_chosen_by_tenants_are_shown_as_text_and_every_control_has_a_name() {
    let stage = furnished("page-markup").await;
    let browser = Browser::start().await;
    let page = browser.open(&url(&stage.service).await, LAPTOP).await;
    page.shows("#subnets", &[MARKUP, "no subnet"]).await;
    go_to(&page, "10.16.0.10").await;
    page.shows("#readout", &["10.16.0.10: foreign", &format!("port {MARKUP}10")]).await;
    page.eval("document.getElementById('used').open = true").await;
    page.shows("#used-rows", &[MARKUP, "intruder", "resting"]).await;
    assert_eq!(page.eval("document.querySelectorAll('img, main script').length").await, 0);
    // The policy limits every script.
    let refused =
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken'; } catch { return 'refused'; } })()";
    assert_eq!(page.eval(refused).await, "refused");
    let nodes = page.read_aloud().await;
    for landmark in ["banner: ", "main: ", "search: ", "region: Leader", "region: Problems", "region: Migrations"] {
        assert!(nodes.iter().any(|node| node.starts_with(landmark)), "{landmark}: {nodes:#?}");
    }
    for control in ["button: ", "searchbox: ", "combobox: ", "application: ", "dialog: "] {
        assert!(!nodes.contains(&control.to_owned()), "a control without a name: {control}");
    }
}

#[tokio::test]
async fn the_page_fits_a_phone_a_laptop_and_a_wall_in_light_and_in_dark() {
    let stage = furnished("page-screens").await;
    let migration = stage.player.start_migration("vm-1", "n3").await;
    stage.player.bind_target(&migration).await;
    let browser = Browser::start().await;
    let blank = browser.open("data:text/html,blank", LAPTOP).await;
    for screen in [PHONE, LAPTOP, WALL] {
        for dark in [false, true] {
            let screen = Screen { dark, ..screen };
            let page = browser.open(&url(&stage.service).await, screen).await;
            let name = format!("{}x{}{}", screen.width, screen.height, if dark { "-dark" } else { "" });
            page.shows("#migrations", &["1 migration runs."]).await;
            page.shows("#problems", &["AddressConflict"]).await;
            go_to(&page, "10.16.0.2").await;
            page.shows("#readout", &["10.16.0.2: VM"]).await;
            // Without the frames of recent changes.
            page.eval("document.activeElement.blur()").await;
            let width = page.eval("[document.documentElement.scrollWidth, innerWidth]").await;
            assert!(width[0].as_f64() <= width[1].as_f64(), "{name} is wider than its screen: {width}");
            check_map(&page, &blank, &name).await;
            assert_eq!(page.errors().await, [""; 0], "{name}");
        }
    }
}

/// The map has as much of each use as its legend says, in the legend's colours.
async fn check_map(page: &Page, blank: &Page, name: &str) {
    let kinds = ["vm", "foreign", "conflict", "free", "excluded"];
    let legend = "[...document.querySelectorAll('#legend button')].map((button) => [button.dataset.kind, button.querySelector('b').textContent])";
    let counts: Vec<(String, String)> = serde_json::from_value(page.eval(legend).await).expect("a legend");
    let colours = kinds.map(|kind| format!("getComputedStyle(document.body).getPropertyValue('--use-{kind}').trim()"));
    let colours: Vec<String> =
        serde_json::from_value(page.eval(&format!("[{}]", colours.join(","))).await).expect("colours");
    let at: Area = page.area("#canvas").await;
    let picture = page.picture().await;
    picture.keep(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png")));
    let pixels = picture.count(blank, at, &colours).await;
    let cells = counts.iter().map(|(_, count)| count.replace(',', "").parse::<f64>().expect("a number")).sum::<f64>();
    let whole: u64 = pixels.iter().sum();
    for (kind, pixels) in kinds.iter().zip(&pixels) {
        let (_, count) = counts.iter().find(|(found, _)| found == kind).expect("a use");
        let count: f64 = count.replace(',', "").parse().expect("a number");
        assert!(count > 0.0, "{kind}: {counts:?}");
        // A cell has its mark and a frame besides; the frame of the search result covers a part of one.
        let (cell, share) = (whole as f64 / cells, *pixels as f64 / count);
        let least = if *kind == "excluded" { 0.03 } else { 0.3 };
        assert!(
            share > least * cell && share < 1.6 * cell,
            "{name}, {kind}: {pixels} pixels for {count} cells of {cell}"
        );
    }
}

#[tokio::test]
async fn the_page_asks_for_the_token_and_comes_back_by_itself_after_a_restart() {
    let token = "0123456789abcdef-token";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), token).expect("written");
    let path = file.path().to_str().expect("a path");
    let mut stage = Stage::build("page-token").flags(["--api-token", path, "--api", "127.0.0.1:0"]).start().await;
    let address = stage.service.api().await;
    let browser = Browser::start().await;
    let page = browser.open(&format!("http://{address}/"), PHONE).await;
    page.shows("#ask", &["The API asks for its token"]).await;
    for (given, then) in [("a-wrong-token-of-some-length", "#ask"), (token, "#link")] {
        page.eval("document.getElementById('token').focus()").await;
        page.write(given).await;
        page.press("Enter").await;
        page.shows(then, if then == "#ask" { &["does not know this token"] } else { &["Live"] }).await;
    }
    assert_eq!(page.eval("[localStorage.length, document.cookie]").await, json!([0, ""]));
    page.eval("window.isTheSamePage = true").await;
    stage.service.kill9();
    page.shows("#link", &["Not connected", "next try in"]).await;
    page.shows("#notice", &["What is shown is of", "connects again by itself"]).await;
    stage.restart_with(|setup| setup.without_flags().flags(["--api-token", path, "--api", &address])).await;
    page.shows("#link", &["Live"]).await;
    page.shows_where("#notice", "nothing", str::is_empty).await;
    stage.make("testvm").await;
    page.shows("#changes", &["testvm"]).await;
    assert_eq!(page.eval("window.isTheSamePage").await, true);
    // A reload needs no token.
    page.reload().await;
    page.shows("#link", &["Live"]).await;
    assert_eq!(page.eval("window.isTheSamePage").await, Value::Null);
}
