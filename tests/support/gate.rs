//! A door on a TCP connection that a test can shut: the server behind it is real, and only the way there is lost.
//!
//! It is how one test takes "Kubernetes away" while the others share the same API server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kube::config::Kubeconfig;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A forwarder from a port of its own to one server; it lives as long as the value, on the test's runtime.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Gate {
    /// An open gate to `server` (`127.0.0.1:6641`).
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (open, state) = watch::channel(true);
        let task = tokio::spawn(forward(listener, server.to_owned(), state));
        Self { address, open, task }
    }

    /// An open gate to the API server of `kubeconfig`, and the kubeconfig, written into `dir`, that goes through it.
    pub async fn to_api_server(kubeconfig: &Path, dir: &Path) -> (Self, PathBuf) {
        let mut config = Kubeconfig::read_from(kubeconfig).expect("the cluster's kubeconfig can be read");
        let cluster = config.clusters.first_mut().and_then(|named| named.cluster.as_mut());
        let server = cluster.and_then(|cluster| cluster.server.as_mut()).expect("a kubeconfig names a server");
        let direct = server.strip_prefix("https://").expect("an API server is reached over https").to_owned();
        let gate = Self::to(direct.trim_end_matches('/')).await;
        *server = format!("https://{}", gate.address);
        let through = dir.join(format!("kubeconfig-{}", gate.address.port()));
        // JSON is YAML, and kube has made the names of files in it absolute.
        let text = serde_json::to_string(&config).expect("a kubeconfig can be written as JSON");
        std::fs::write(&through, text).expect("the kubeconfig through the gate");
        (gate, through)
    }

    /// Where the gate listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The OVSDB remote that goes through the gate.
    pub fn remote(&self) -> String {
        format!("tcp:{}", self.address)
    }

    /// Cuts the open connections, and closes every new one at once.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, server: String, state: watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        if !*state.borrow() {
            continue;
        }
        let (server, mut state) = (server.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(mut upstream) = TcpStream::connect(server).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut upstream) => {}
                // Also when the gate itself is dropped.
                _ = state.wait_for(|open| !open) => {}
            }
        });
    }
}
