//! `skylog umount DIR`: ships what is only in the journal, unmounts, and waits until the daemon has ended.

use super::control::{Ask, Conversation, Say};
use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{mount_point, output, registry, size, utab};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ship everything to the store, unmount, and wait for the daemon to end.
#[derive(clap::Args)]
pub struct Umount {
    /// The mount point.
    pub dir: PathBuf,
    /// Do not ship; say how much stays in the local journal. Nothing is lost: the next mount here has it.
    #[arg(long)]
    pub now: bool,
    /// Take the mount away at once; it ends, and what is left is shipped, when the last file in it is closed.
    #[arg(long, conflicts_with = "now")]
    pub lazy: bool,
}

impl Umount {
    /// Returns once the daemon is gone.
    pub fn run(&self) -> Outcome {
        let dir = mount_point::canonical(&self.dir)?;
        if mount_point::clear_dead(&dir)? {
            utab::leave(&dir);
            output::note(format_args!(
                "skylog: the daemon of {} was gone; its mount point is clear now, mounting again recovers everything synced",
                dir.display()
            ));
            return Ok(());
        }
        if let Some(registration) =
            registry::find_mount(&dir).map(|(_, found)| found).filter(|found| !registry::alive(found.pid))
        {
            registration.remove();
            return Err(Failure::failed(format_args!(
                "nothing is mounted on {}, its daemon (process {}) is gone; mounting again recovers everything synced",
                dir.display(),
                registration.pid
            )));
        }
        if self.lazy {
            return lazily(&dir);
        }
        let mut conversation = Conversation::with(&dir, &Ask::Umount { now: self.now })?;
        let progress = Progress::bytes("shipping");
        let mut told = false;
        let unshipped = loop {
            match conversation.next()? {
                Say::Progress { done, total, waiting } => {
                    if let Some(why) = waiting.filter(|_| !std::mem::replace(&mut told, true)) {
                        progress.say(&format!(
                            "skylog: waiting for the store: {why}; `skylog umount --now` leaves it in the journal"
                        ));
                    }
                    progress.at(done, total);
                }
                Say::Waiting { why } => progress.say(&format!("skylog: {why}")),
                Say::Done { unshipped_bytes } => break unshipped_bytes,
                _ => {}
            }
        };
        progress.end();
        wait_for_end(conversation.pid())?;
        if unshipped == 0 && self.now {
            output::line(format_args!("nothing stays in the journal; the store has everything"));
        } else if unshipped > 0 {
            output::line(format_args!(
                "{} stay in the journal ({unshipped} bytes); the next mount with this state directory ships them",
                size::show(unshipped)
            ));
        }
        Ok(())
    }
}

/// The daemon sees the mount gone, and ships what is left, once nobody uses it any more.
fn lazily(dir: &Path) -> Outcome {
    registry::socket_of(dir)?;
    mount_point::detach(dir).map_err(|e| Failure::failed(format_args!("{} cannot be unmounted: {e}", dir.display())))
}

fn wait_for_end(pid: u32) -> Outcome {
    for _ in 0..1000 {
        if !registry::alive(pid) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::failed(format_args!("unmounted, but process {pid} has not ended yet")))
}
