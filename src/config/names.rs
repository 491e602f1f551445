//! Flags of the names of VMs.

use std::time::Duration;

use clap::Args;

use crate::intent::Retention;
use crate::plan::DnsDomain;

/// Options of `run` for the names of VMs.
#[derive(Debug, Clone, Args)]
pub struct NamesOptions {
    /// The domain of the names of VMs that guests look up through OVN: VM.NAMESPACE.DOMAIN and
    /// NETWORK.VM.NAMESPACE.DOMAIN, with their reverse names. Without it there are none, and those of before are removed
    #[arg(long, env = "OVN_KUBEVIRT_DNS_DOMAIN", value_name = "DOMAIN")]
    pub dns_domain: Option<DnsDomain>,

    /// The time between two writes of names, from 1s to 1h. Each costs ovn-northd a full computation
    #[arg(long, env = "OVN_KUBEVIRT_DNS_INTERVAL", value_name = "DURATION", default_value = "5s", value_parser = interval)]
    pub dns_interval: Duration,
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_600);

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(Retention::For(interval)) if (SHORTEST..=LONGEST).contains(&interval) => Ok(interval),
        _ => Err("write a duration from 1s to 1h, as in 5s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_duration_from_a_second_to_an_hour() {
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!((interval("1s"), interval("1h")), (Ok(SHORTEST), Ok(LONGEST)));
        for bad in ["", "0s", "5", "61m", "forever"] {
            assert_eq!(interval(bad), Err("write a duration from 1s to 1h, as in 5s".to_owned()), "{bad}");
        }
    }
}
