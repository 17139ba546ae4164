//! Who asks, beyond user and group: the frontend alone can find out, and only a few operations need to know.

use super::Cx;

/// What the thread that asks may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Its effective capabilities over the whole machine, as bits.
    pub capabilities: u64,
}

impl Rights {
    /// `CAP_FSETID`: it keeps set-id bits where others lose them.
    pub const FSETID: u32 = 4;
    /// `CAP_SYS_ADMIN`: it sees attributes of the namespace `trusted`.
    pub const SYS_ADMIN: u32 = 21;

    fn has(&self, capability: u32) -> bool {
        self.capabilities & 1 << capability != 0
    }
}

/// How to find out what the caller may do. When that cannot be told, it may nothing.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The number of its thread.
    pub thread: u32,
    /// Looks the rights of a thread up.
    pub look_up: fn(u32) -> Option<Rights>,
}

impl Caller {
    /// Somebody with every right.
    pub const PRIVILEGED: Caller =
        Caller { thread: 0, look_up: |_| Some(Rights { groups: Vec::new(), capabilities: u64::MAX }) };
}

impl Default for Caller {
    fn default() -> Caller {
        Caller { thread: 0, look_up: |_| None }
    }
}

impl Cx {
    /// Whether the caller has a capability.
    pub(super) fn has(&self, capability: u32) -> bool {
        (self.caller.look_up)(self.caller.thread).is_some_and(|rights| rights.has(capability))
    }

    /// Whether the caller may give set-group-id to a file of this group.
    pub(super) fn may_set_group_id(&self, gid: u32) -> bool {
        let allowed = |rights: Rights| rights.groups.contains(&gid) || rights.has(Rights::FSETID);
        self.gid == gid || (self.caller.look_up)(self.caller.thread).is_some_and(allowed)
    }
}
