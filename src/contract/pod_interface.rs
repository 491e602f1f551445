//! The names of a launcher pod's interfaces.

use ring::digest::{SHA256, digest};

/// The interface of the cluster's default network in a launcher pod.
pub const FIRST_INTERFACE: &str = "eth0";
/// The hexadecimal digits in the name that KubeVirt gives to an interface.
const DIGITS: usize = 11;

/// The name that KubeVirt gives to a network's interface in the pod: `pod`, and the first 11 hexadecimal digits of the
/// SHA-256 of the network's name.
pub fn pod_interface(network: &str) -> String {
    let digits: String =
        digest(&SHA256, network.as_bytes()).as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("pod{}", &digits[..DIGITS])
}

/// Returns true if an interface may have its name from [`pod_interface`]. Launcher pods of older releases of KubeVirt
/// have numbered ones.
pub fn is_hashed(interface: &str) -> bool {
    let digits = interface.strip_prefix("pod").filter(|digits| digits.len() == DIGITS);
    digits.is_some_and(|digits| digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_the_name_that_kubevirt_gives_it() {
        // As virt-controller has written it for a network of that name.
        assert_eq!(pod_interface("data"), "pod3a6eb0790f3");
        assert!(is_hashed("pod3a6eb0790f3"));
        for other in ["eth0", "net1", "pod3a6eb0790f", "pod3a6eb0790fX", "3a6eb0790f3"] {
            assert!(!is_hashed(other), "{other}");
        }
    }
}
