//! `skylog umount DIR`: ships what is only in the journal, unmounts, and waits until the daemon has ended.

use super::control::{Ask, Conversation, Say};
use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{daemon, mount_point, output, registry, size, utab};
use skylog::media::process_runs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// While an unmount waits for the store, it says how it goes this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

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
            registry::find_mount(&dir).map(|(_, found)| found).filter(|found| !process_runs(found.pid))
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
        let mut wait = Wait::default();
        let (unshipped, fenced) = loop {
            match conversation.next()? {
                Say::Progress { done, total, waiting } => {
                    if let Some(line) = wait.line(Instant::now(), total.saturating_sub(done), waiting) {
                        progress.say(&line);
                    }
                    progress.at(done, total);
                }
                Say::Waiting { why } => progress.say(&format!("skylog: {why}")),
                Say::Done { unshipped_bytes, fenced } => break (unshipped_bytes, fenced),
                _ => {}
            }
        };
        progress.end();
        wait_for_end(conversation.pid())?;
        self.say_what_stays(unshipped, fenced, conversation.state())
    }

    fn say_what_stays(&self, unshipped: u64, fenced: Option<String>, state: &Path) -> Outcome {
        match fenced.map(|why| daemon::stays_for_ever(unshipped, state, &why)) {
            // Who did not say that something may stay asked for more than was done.
            Some(stays) if !self.now => return Err(Failure::failed(format_args!("unmounted, but {stays}"))),
            Some(stays) => output::line(stays),
            None if unshipped == 0 && self.now => {
                output::line(format_args!("nothing stays in the journal; the store has everything"));
            }
            None if unshipped > 0 => output::line(format_args!(
                "{} stay in the journal ({unshipped} bytes) in {}; the next mount with this state directory ships them",
                size::show(unshipped),
                state.display()
            )),
            None => {}
        }
        Ok(())
    }
}

/// While nothing can be shipped, what is said of it, and when: the reason at once, how it goes now and then, and when it is over.
#[derive(Default)]
struct Wait {
    said: Option<Instant>,
}

impl Wait {
    fn line(&mut self, now: Instant, left: u64, waiting: Option<String>) -> Option<String> {
        match (waiting, self.said) {
            (None, None) => None,
            (None, Some(_)) => {
                self.said = None;
                Some("skylog: going on, the store takes what is sent again".to_owned())
            }
            (Some(_), Some(said)) if now.duration_since(said) < TELL_EVERY => None,
            (Some(why), said) => {
                self.said = Some(now);
                Some(match said {
                    None => format!(
                        "skylog: waiting: {why}; interrupted, this command leaves the mount as it is, \
                         `skylog umount --now` leaves in the journal what is not shipped"
                    ),
                    Some(_) => format!("skylog: still waiting, with {} to ship: {why}", size::show(left)),
                })
            }
        }
    }
}

/// The daemon sees the mount gone, and ships what is left, once nobody uses it any more.
fn lazily(dir: &Path) -> Outcome {
    registry::socket_of(dir)?;
    mount_point::detach(dir).map_err(|e| Failure::failed(format_args!("{} cannot be unmounted: {e}", dir.display())))
}

fn wait_for_end(pid: u32) -> Outcome {
    for _ in 0..1000 {
        if !process_runs(pid) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::failed(format_args!("unmounted, but process {pid} has not ended yet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmount_that_waits_says_why_at_once_how_it_goes_now_and_then_and_when_it_is_over() {
        let (start, mut wait) = (Instant::now(), Wait::default());
        let mut say = |secs: u64, waiting: Option<&str>| {
            wait.line(start + Duration::from_secs(secs), 3 << 20, waiting.map(str::to_owned)).unwrap_or_default()
        };
        assert_eq!(say(0, None), "");
        assert!(say(1, Some("no answer")).starts_with("skylog: waiting: no answer; interrupted, "));
        assert_eq!(say(10, Some("no answer")), "");
        assert_eq!(say(11, Some("no way")), "skylog: still waiting, with 3.0 MiB to ship: no way");
        assert_eq!(say(12, Some("no way")), "");
        assert_eq!(say(13, None), "skylog: going on, the store takes what is sent again");
        assert_eq!(say(14, None), "");
        assert!(say(15, Some("no answer")).starts_with("skylog: waiting: "));
    }
}
