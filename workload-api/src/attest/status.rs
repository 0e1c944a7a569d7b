//! What /proc/PID/status says about a process's users and groups, and whether it counts processes as we do.

use crate::peer::NotAttested;

/// The credentials of a process now, as seen from our user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The user that counts where it asks for something.
    pub(crate) effective_uid: u32,
    /// The group likewise.
    pub(crate) effective_gid: u32,
    /// Its supplementary groups, as many as are looked at.
    pub(crate) supplementary_gids: Vec<u32>,
    /// Whether it is in a process namespace within ours, as in nearly all containers.
    pub(crate) is_nested: bool,
}

impl Credentials {
    /// Reads the text of /proc/PID/status (proc_pid_status(5)).
    pub(crate) fn parse(status: &str) -> Result<Self, NotAttested> {
        Ok(Self {
            effective_uid: effective(status, "Uid:")?,
            effective_gid: effective(status, "Gid:")?,
            supplementary_gids: line(status, "Groups:")?
                .split_ascii_whitespace()
                .take(MAX_SUPPLEMENTARY_GROUPS)
                .map(|gid| gid.parse().map_err(|_| UNREADABLE))
                .collect::<Result<_, _>>()?,
            is_nested: is_nested(status),
        })
    }
}

/// One id for each process namespace that it is in, from that of this /proc inwards. A kernel that does not say counts
/// as one that hides it.
fn is_nested(status: &str) -> bool {
    line(status, "NSpid:").map_or(true, |ids| ids.split_ascii_whitespace().count() != 1)
}

/// The second of the four ids: real, effective, saved, file system.
fn effective(status: &str, name: &str) -> Result<u32, NotAttested> {
    let mut ids = line(status, name)?.split_ascii_whitespace();
    ids.nth(1).and_then(|id| id.parse().ok()).ok_or(UNREADABLE)
}

fn line<'a>(status: &'a str, name: &str) -> Result<&'a str, NotAttested> {
    // The process chooses its `Name:`, but the kernel escapes line ends in it: no line is of its making.
    status.lines().find_map(|line| line.strip_prefix(name)).ok_or(UNREADABLE)
}

const UNREADABLE: NotAttested = NotAttested::Unreadable("/proc/PID/status is not as it should be");
/// Linux allows 65,536; beyond these none is a selector.
const MAX_SUPPLEMENTARY_GROUPS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_ids_count() {
        let status = "Name:\tapp\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\nGid:\t10\t11\t12\t13\nGroups:\t4 27 1000 \nNSpid:\t77\n";
        let read = Credentials::parse(status).unwrap();
        let supplementary_gids = vec![4, 27, 1000];
        let expected =
            Credentials { effective_uid: 1001, effective_gid: 11, supplementary_gids, is_nested: false };
        assert_eq!(read, expected);
    }

    #[test]
    fn who_has_another_number_to_itself_is_nested() {
        let is_nested = |of: &str| {
            let status =
                format!("Name:\tapp\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n{of}Seccomp:\t0\n");
            Credentials::parse(&status).unwrap().is_nested
        };
        assert!(!is_nested("NStgid:\t4711\nNSpid:\t4711\n"));
        // One container, and a container in a container.
        assert!(is_nested("NStgid:\t4711\t1\nNSpid:\t4711\t1\n"));
        assert!(is_nested("NSpid:\t4711\t23\t1\n"));
        for unknown in ["", "NSpid:\n", "NStgid:\t4711\n"] {
            assert!(is_nested(unknown), "{unknown:?}");
        }
    }

    #[test]
    fn no_groups_are_none_and_most_groups_are_cut() {
        let status = |groups: &str| format!("Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t{groups}\n");
        assert!(Credentials::parse(&status(" ")).unwrap().supplementary_gids.is_empty());
        let many: Vec<_> = (0..70_000).map(|gid: u32| gid.to_string()).collect();
        let read = Credentials::parse(&status(&many.join(" "))).unwrap();
        assert_eq!(read.supplementary_gids.len(), MAX_SUPPLEMENTARY_GROUPS);
    }

    #[test]
    fn what_lacks_or_is_no_number_is_refused() {
        for status in [
            "",
            "Uid:\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n",
            "Uid:\t1\t-1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n",
            "Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n",
            "Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t4 x\n",
            "Uid:\t1\t4294967296\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n",
        ] {
            assert_eq!(Credentials::parse(status), Err(UNREADABLE), "{status:?}");
        }
    }
}
