//! Python with the packages of PyPI that the tests need: `tests/setup.sh` installs them into a folder of the cache.

use std::path::PathBuf;

/// The version of `websockets`, as in `tests/setup.sh`.
const WEBSOCKETS: &str = "15.0.1";

/// A Python that has `websockets`.
///
/// # Panics
/// If it is not installed.
pub fn with_websockets() -> PathBuf {
    let cache = std::env::var_os("OVN_KUBEVIRT_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME is set");
        PathBuf::from(home).join(".cache/ovn-kubevirt")
    });
    let python = cache.join(format!("websockets-{WEBSOCKETS}/bin/python"));
    assert!(python.is_file(), "{} is missing: run tests/setup.sh", python.display());
    python
}
