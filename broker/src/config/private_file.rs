//! Files with secrets: who may read them.

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

/// Whether nobody but we may read a file.
///
/// What root owns may be readable for a group: root has given it to that one, so that a service reads it that is not to
/// change it. Volumes of secrets in Kubernetes are so, where a pod is not root.
pub fn is_private(file: &Metadata) -> bool {
    permits_us_alone(file.uid(), file.permissions().mode(), rustix::process::geteuid().as_raw())
}

fn permits_us_alone(owner: u32, mode: u32, we: u32) -> bool {
    let of_root_for_us = owner == 0 && we != 0;
    let forbidden = if of_root_for_us { BEYOND_READING_OF_GROUP | OTHERS } else { GROUP | OTHERS };
    mode & forbidden == 0
}

const GROUP: u32 = 0o070;
const BEYOND_READING_OF_GROUP: u32 = 0o030;
const OTHERS: u32 = 0o007;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_or_given_to_our_group_by_root() {
        let (root, we, somebody) = (0, 1000, 1001);
        for (owner, mode, reader, is_good) in [
            (we, 0o600, we, true),
            (we, 0o400, we, true),
            (we, 0o640, we, false),
            (we, 0o604, we, false),
            (root, 0o440, we, true),
            (root, 0o640, we, true),
            (root, 0o660, we, false),
            (root, 0o444, we, false),
            (root, 0o641, we, false),
            (somebody, 0o640, we, false),
            (root, 0o600, root, true),
            (root, 0o640, root, false),
        ] {
            assert_eq!(permits_us_alone(owner, mode, reader), is_good, "{owner} {mode:o} {reader}");
        }
    }
}
