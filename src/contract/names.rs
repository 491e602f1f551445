//! The rows that the names of VMs are in.

use uuid::Uuid;

use super::VmKey;

/// The rows of a switch for its names. A change of a VM rewrites the row of that VM alone, and northd and each chassis
/// read it whole.
pub const NAME_ROWS: u8 = 64;

/// The number of the row, below [`NAME_ROWS`], that has the names of a VM on each of its switches. The same in every
/// process and release: FNV-1a of `<namespace>/<name>`.
pub fn name_row(vm: &VmKey) -> u8 {
    let bytes = vm.namespace.bytes().chain([b'/']).chain(vm.name.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // The remainder is below the divisor.
    (hash % u64::from(NAME_ROWS)) as u8
}

/// The UUID of one of the rows of a switch: the same at every attempt, as that of a port.
pub fn name_row_uuid(instance: &str, switch: &Uuid, row: u8) -> Uuid {
    /// A UUIDv4 made once for this purpose.
    const NAMESPACE: Uuid = Uuid::from_u128(0x0c5b_7ae4_91d3_4f6e_8a17_2d60_be94_c135);
    Uuid::new_v5(&NAMESPACE, format!("DNS/{instance}/{switch}/{row}").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_vm_has_its_row_for_ever_and_the_rows_of_many_vms_are_filled_alike() {
        // Another release may find rows of this one.
        assert_eq!([name_row(&VmKey::new("default", "testvm")), name_row(&VmKey::new("n", "vm-1"))], [26, 57]);
        let switch = Uuid::from_u128(1);
        let text = name_row_uuid("default", &switch, 7).to_string();
        assert_eq!(text, "490f1394-e829-54f8-af0c-8b4c3e497968");
        let mut filled = [0_u32; NAME_ROWS as usize];
        (0..6_400).for_each(|number| filled[usize::from(name_row(&VmKey::new("ns", format!("vm-{number}"))))] += 1);
        assert!(filled.iter().all(|vms| (60..=140).contains(vms)), "{filled:?}");
    }

    #[test]
    fn each_instance_switch_and_row_has_another_uuid() {
        let of = |instance: &str, switch, row| name_row_uuid(instance, &Uuid::from_u128(switch), row);
        let uuids = BTreeSet::from([of("a", 1, 0), of("a", 1, 1), of("a", 2, 0), of("b", 1, 0)]);
        assert_eq!(uuids.len(), 4);
    }
}
