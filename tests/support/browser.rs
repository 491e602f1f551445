//! Chromium without a screen, driven as a person drives it: by its DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>), over one WebSocket.
//!
//! ```text
//!  Browser::start() --> open(url, &Screen) --> Page: eval, text, shows, press, write, picture
//! ```
//!
//! The browser resolves no name and reaches loopback addresses alone. [`Page::errors`] has the errors that a page logs, which
//! include the refusals of its Content-Security-Policy.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use soketto::handshake::{Client, ServerResponse};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::eventually::{deadline, eventually};
use super::process::{Daemon, mortal};

/// A picture of a large screen.
const LARGEST_MESSAGE: usize = 64 * 1_024 * 1_024;

/// A running Chromium, killed on drop.
pub struct Browser {
    _daemon: Daemon,
    profile: tempfile::TempDir,
}

/// The screen of a page, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// The user prefers a dark theme.
    pub dark: bool,
}

/// A page in a tab of its own.
pub struct Page {
    wire: Mutex<Wire>,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Area {
    /// The left edge.
    pub x: f64,
    /// The upper edge.
    pub y: f64,
    /// The width.
    pub width: f64,
    /// The height.
    pub height: f64,
}

/// A picture of the screen.
pub struct Picture {
    /// The file's bytes, in base64.
    png: String,
}

struct Wire {
    sender: soketto::Sender<Compat<TcpStream>>,
    receiver: soketto::Receiver<Compat<TcpStream>>,
    session: Option<String>,
    last_id: u64,
    errors: Vec<String>,
}

impl Browser {
    /// Starts the browser.
    ///
    /// # Panics
    /// If it is not installed, or does not start.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut command = mortal("chromium");
        command
            .args(["--headless", "--remote-debugging-port=0", "--no-first-run", "--hide-scrollbars", "--disable-gpu"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--force-color-profile=srgb"])
            // A container may have little of /dev/shm.
            .args(["--disable-dev-shm-usage", "--lang=en-US"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if is_root() {
            // Chromium refuses to run as root inside its sandbox. It shows pages of the tests alone.
            command.arg("--no-sandbox");
        }
        command.arg("about:blank");
        let is_there = Command::new("chromium").arg("--version").stderr(Stdio::null()).output();
        assert!(
            is_there.is_ok_and(|output| output.status.success()),
            "no chromium: apt install chromium, or make setup"
        );
        let browser = Self { _daemon: Daemon::start("chromium", command), profile };
        browser.devtools().await;
        browser
    }

    /// The port and the path of the DevTools protocol.
    async fn devtools(&self) -> (u16, String) {
        let file = self.profile.path().join("DevToolsActivePort");
        eventually("Chromium says where its DevTools are", || async {
            let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let (port, path) = text.trim().split_once('\n').ok_or_else(|| text.clone())?;
            Ok::<_, String>((port.parse().map_err(|_| text.clone())?, path.to_owned()))
        })
        .await
    }

    /// Opens a page, and waits until it has been read.
    pub async fn open(&self, url: &str, screen: Screen) -> Page {
        let (port, path) = self.devtools().await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("Chromium listens");
        let host = format!("127.0.0.1:{port}");
        let mut handshake = Client::new(stream.compat(), &host, &path);
        let response = handshake.handshake().await.expect("Chromium speaks WebSocket");
        assert!(matches!(response, ServerResponse::Accepted { .. }), "{response:?}");
        let mut builder = handshake.into_builder();
        builder.set_max_message_size(LARGEST_MESSAGE);
        builder.set_max_frame_size(LARGEST_MESSAGE);
        let (sender, receiver) = builder.finish();
        let mut wire = Wire { sender, receiver, session: None, last_id: 0, errors: Vec::new() };
        let target = wire.call("Target.createTarget", json!({"url": "about:blank"})).await.expect("a tab");
        let attached = json!({"targetId": target["targetId"], "flatten": true});
        let session = wire.call("Target.attachToTarget", attached).await.expect("a session");
        wire.session = session["sessionId"].as_str().map(ToOwned::to_owned);
        let page = Page { wire: Mutex::new(wire) };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            page.call(domain, json!({})).await;
        }
        page.show_on(screen).await;
        page.load("Page.navigate", json!({"url": url})).await;
        page
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

impl Wire {
    async fn call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = session.clone().into();
        }
        let asking = async {
            self.sender.send_text(request.to_string()).await.expect("Chromium reads");
            self.sender.flush().await.expect("Chromium reads");
            loop {
                let mut text = Vec::new();
                self.receiver.receive_data(&mut text).await.unwrap_or_else(|error| panic!("{method}: {error}"));
                let message: Value = serde_json::from_slice(&text).expect("JSON of Chromium");
                if message["id"] == id {
                    let error = &message["error"];
                    return if error.is_null() { Ok(message["result"].clone()) } else { Err(error.to_string()) };
                }
                self.note(&message);
            }
        };
        let answer = tokio::time::timeout(deadline(), asking).await;
        answer.unwrap_or_else(|_| panic!("{method}: Chromium has not answered within {:?}", deadline()))
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        let error = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => &params["exceptionDetails"],
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => &params["entry"],
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => &params["args"],
            _ => return,
        };
        self.errors.push(error.to_string());
    }
}

impl Page {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn try_call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.wire.lock().await.call(method, params).await
    }

    /// Leaves the page, and waits until the new one has been read.
    async fn load(&self, method: &str, params: Value) {
        self.eval("window.isLeft = true").await;
        self.call(method, params).await;
        let expression = json!({"expression": "window.isLeft !== true && document.readyState", "returnByValue": true});
        eventually("the page has been read", || async {
            // On the way from one page to another there is an error.
            let state = self.try_call("Runtime.evaluate", expression.clone()).await?;
            if state["result"]["value"] == "complete" { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
    }

    /// Loads the page again, as a person does.
    pub async fn reload(&self) {
        self.load("Page.reload", json!({})).await;
    }

    /// Shows the page on another screen.
    pub async fn show_on(&self, Screen { width, height, dark }: Screen) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let theme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.call("Emulation.setEmulatedMedia", json!({"features": [theme]})).await;
    }

    /// The value of an expression, which may be a promise.
    ///
    /// # Panics
    /// If it throws.
    pub async fn eval(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// The words that a person sees of an element, with one blank between two; empty where there is no such element, or it
    /// is hidden.
    pub async fn text(&self, selector: &str) -> String {
        // `innerText` of an element that is hidden is not empty.
        let read = format!(
            "((node) => (node?.checkVisibility() ? node.innerText : ''))(document.querySelector({}))",
            json!(selector)
        );
        let text = self.eval(&read).await;
        text.as_str().expect("a text").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits until an element has all these words. Gives back its text.
    pub async fn shows(&self, selector: &str, words: &[&str]) -> String {
        self.shows_where(selector, &format!("{words:?}"), |text| words.iter().all(|word| text.contains(word))).await
    }

    /// Waits until the text of an element satisfies `holds`; `what` describes that. Gives back the text.
    pub async fn shows_where(&self, selector: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        eventually(&format!("{selector} shows {what}"), || async {
            let text = self.text(selector).await;
            if holds(&text) { Ok(text) } else { Err(format!("{text:?}; errors: {:?}", self.errors().await)) }
        })
        .await
    }

    /// Presses a key, as `Tab`, `Enter`, `ArrowDown` or `/`.
    pub async fn press(&self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            "Backspace" => 8,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            one if one.chars().count() == 1 => one,
            _ => "",
        };
        let down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", down).await;
        self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code})).await;
    }

    /// Writes text where the focus is.
    pub async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// The errors that the page has logged, and the refusals of its policy.
    pub async fn errors(&self) -> Vec<String> {
        self.wire.lock().await.errors.clone()
    }

    /// The roles and names of the elements that a screen reader finds, as in `button: Close`.
    pub async fn read_aloud(&self) -> Vec<String> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false);
        let word = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| format!("{}: {}", word(&node["role"]), word(&node["name"]))).collect()
    }

    /// The place of an element on the screen, after it has been scrolled there.
    pub async fn area(&self, selector: &str) -> Area {
        let place = format!(
            "(() => {{ const node = document.querySelector({}); node.scrollIntoView({{ block: 'center' }});
              const {{ x, y, width, height }} = node.getBoundingClientRect(); return {{ x, y, width, height }}; }})()",
            json!(selector)
        );
        serde_json::from_value(self.eval(&place).await).expect("an area")
    }

    /// The screen as it is now.
    pub async fn picture(&self) -> Picture {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        Picture { png: picture["data"].as_str().expect("a picture").to_owned() }
    }
}

impl Picture {
    /// Writes the picture to a file, for a person.
    pub fn keep(&self, file: &Path) {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(&self.png).expect("base64");
        std::fs::write(file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// The number of pixels of each colour, as in `#0b57d0`, in a part of the picture. The browser that took it reads it,
    /// too: `blank` is a page without a policy.
    pub async fn count(&self, blank: &Page, area: Area, colours: &[String]) -> Vec<u64> {
        let expression = format!(
            "(async () => {{
                const blob = await (await fetch('data:image/png;base64,{}')).blob();
                const bitmap = await createImageBitmap(blob);
                const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
                context.drawImage(bitmap, 0, 0);
                const {{ x, y, width, height }} = {};
                const pixels = new Uint32Array(context.getImageData(x, y, width, height).data.buffer);
                return {}.map((colour) => {{
                    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
                    const wanted = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
                    return pixels.reduce((count, pixel) => count + (pixel === wanted), 0);
                }});
            }})()",
            self.png,
            json!(area),
            json!(colours),
        );
        serde_json::from_value(blank.eval(&expression).await).expect("numbers")
    }
}
