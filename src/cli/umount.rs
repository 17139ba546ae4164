//! `skylog umount DIR`: ships what is only in the journal, unmounts, and waits until the daemon has ended.

use super::control::{Ask, Conversation, Say};
use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{mount_point, registry, size};
use std::path::PathBuf;
use std::time::Duration;

/// Ship everything to the store, unmount, and wait for the daemon to end.
#[derive(clap::Args)]
pub struct Umount {
    /// The mount point.
    dir: PathBuf,
    /// Do not ship; say how much stays in the local journal. Nothing is lost: the next mount here has it.
    #[arg(long)]
    now: bool,
}

impl Umount {
    /// Returns once the daemon is gone.
    pub fn run(&self) -> Outcome {
        let dir = mount_point::canonical(&self.dir)?;
        if mount_point::clear_dead(&dir)? {
            eprintln!(
                "skylog: the daemon of {} was gone; its mount point is clear now, mounting again recovers everything synced",
                dir.display()
            );
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
                Say::Done { unshipped_bytes } => break unshipped_bytes,
                Say::Status { .. } | Say::Failed { .. } => {}
            }
        };
        progress.end();
        wait_for_end(conversation.pid())?;
        if unshipped == 0 && self.now {
            println!("nothing stays in the journal; the store has everything");
        } else if unshipped > 0 {
            println!(
                "{} stay in the journal ({unshipped} bytes); the next mount with this state directory ships them",
                size::show(unshipped)
            );
        }
        Ok(())
    }
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
