//! What the kernel does not tell of a caller: its supplementary groups and capabilities, read from `/proc` when an operation
//! asks for them. The caller waits for its answer meanwhile, so it is still there.

use crate::fs::Rights;
use std::fs;

/// The rights of a thread; `None` when they cannot be told.
pub fn rights(thread: u32) -> Option<Rights> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let rights = parse(&status)?;
    // Capabilities in a user namespace of one's own are none over the machine.
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).ok();
    let ours = namespace("self").is_some_and(|ours| namespace(&thread.to_string()) == Some(ours));
    Some(Rights { capabilities: if ours { rights.capabilities } else { 0 }, ..rights })
}

fn parse(status: &str) -> Option<Rights> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let groups = field("Groups")?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let capabilities = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
    Some(Rights { groups, capabilities })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_capabilities_are_read_from_what_the_kernel_says() {
        let status = "Name:\tcp\nGroups:\t4 20 1000 \nCapPrm:\t0\nCapEff:\t0000000000000010\n";
        assert_eq!(parse(status), Some(Rights { groups: vec![4, 20, 1000], capabilities: 1 << Rights::FSETID }));
        assert_eq!(parse("Groups:\t\nCapEff:\t0\n"), Some(Rights::default()));
        for broken in ["", "Groups:\t1\n", "CapEff:\t0\n", "Groups:\tx\nCapEff:\t0\n", "Groups:\t1\nCapEff:\tx\n"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn our_own_rights_can_be_told_and_those_of_nobody_cannot() {
        assert!(rights(std::process::id()).is_some());
        assert_eq!(rights(0), None);
    }
}
