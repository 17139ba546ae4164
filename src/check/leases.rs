//! Who uses the filesystem. A lease that cannot be read may be that of a writer, or of a follower that reads what is to be deleted.

use super::Check;
use crate::base::clock::SystemClock;
use crate::format::names::{self, LEASES};
use crate::ship::leases::Leases;

/// The newest number of each holder; older ones say nothing any more.
pub(super) fn check_leases(check: &mut Check<'_>) -> bool {
    let mut leases = Leases::new(check.uuid);
    if let Err(e) = leases.look(&*check.store, &SystemClock::new()) {
        check.problem(LEASES, e.to_string());
        return false;
    }
    if let Some(what) = leases.unknown() {
        // Nothing of the filesystem is wrong by that, and there is nothing that a repair could make anew.
        check.note(format!(
            "{LEASES}: {what}: one of them may use the filesystem; a mount for writing removes those that have ended, when it has \
             something to delete and saw them ten minutes before"
        ));
    }
    for holder in leases.holders() {
        if let Err(reason) = &holder.newest {
            check.problem(names::lease(holder.who, holder.number()), reason.clone());
        }
    }
    true
}
