//! `skylog documents DIR`: manual pages and shell completions, written from the definitions that the parser itself reads by. It
//! is called by `scripts/install`.

use super::Arguments;
use super::failure::{Failure, Outcome};
use super::helper::{MountHelper, UmountHelper};
use super::mount_words::{Read, WORDS, Word};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Write manual pages and shell completions.
#[derive(clap::Args)]
pub struct Documents {
    /// A directory; `man1`, `man8`, `bash`, `zsh` and `fish` are made in it.
    dir: PathBuf,
}

type Holds = fn(&Read) -> bool;

/// Four ways in which words after -o are read, under the headings that people see.
const CHAPTERS: [(&str, Holds); 4] = [
    ("OPTIONS AFTER -o", |read| matches!(read, Read::Value(_) | Read::Plain(_))),
    ("REMOTE STORES AFTER -o", |read| matches!(read, Read::Remote(_))),
    ("FLAGS OF THE KERNEL AFTER -o", |read| matches!(read, Read::Flag(..))),
    ("WORDS OF FSTAB AFTER -o, WITHOUT A MEANING OF THEIR OWN", |read| matches!(read, Read::Nothing)),
];

const FSTAB: &str = "/data/store  /mnt/sky  skylog  noexec,grace=86400,x-systemd.mount-timeout=infinity  0  0";

impl Documents {
    /// Writes all of them.
    pub fn run(&self) -> Outcome {
        self.write().map_err(|e| Failure::failed(format_args!("{}: {e}", self.dir.display())))
    }

    fn write(&self) -> io::Result<()> {
        for (name, page) in pages() {
            put(&self.dir.join(name), &page)?;
        }
        for (shell, name) in
            [(Shell::Bash, "bash/skylog"), (Shell::Zsh, "zsh/_skylog"), (Shell::Fish, "fish/skylog.fish")]
        {
            let mut completion = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "skylog", &mut completion);
            put(&self.dir.join(name), &completion)?;
        }
        Ok(())
    }
}

/// All manual pages, by their place below `man`.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut skylog = Arguments::command();
    skylog.build();
    let commands = skylog.get_subcommands().filter(|command| !command.is_hide_set());
    let mut pages: Vec<(String, Vec<u8>)> = commands.map(|command| page(command.clone(), "1")).collect();
    pages.push(page(skylog.clone(), "1"));
    pages.push(page(MountHelper::command(), "8"));
    pages.push(page(UmountHelper::command(), "8"));
    for name in ["mount", "umount"] {
        pages.push((format!("man8/{name}.fuse.skylog.8"), format!(".so man8/{name}.skylog.8\n").into_bytes()));
    }
    pages
}

/// One page. Those of commands that mount end in the words after `-o`, which their `--help` lists in its own way.
fn page(command: Command, section: &str) -> (String, Vec<u8>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mounts = command.get_arguments().any(|argument| argument.get_short() == Some('o'));
    let command = if mounts { command.after_long_help(None::<&str>) } else { command };
    let man = Man::new(command.version(env!("CARGO_PKG_VERSION"))).manual("skylog").section(section);
    let man = man.source(concat!("skylog ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render(&mut page).expect("a vector takes everything");
    if mounts {
        words().to_writer(&mut page).expect("a vector takes everything");
    }
    (format!("man{section}/{name}.{section}"), page)
}

fn words() -> Roff {
    let mut roff = Roff::new();
    for (title, is_here) in CHAPTERS {
        roff.control("SH", [title]);
        for Word { spelling, means, .. } in WORDS.iter().filter(|word| is_here(&word.read)) {
            roff.control("TP", []).text([bold(*spelling)]).text([roman(format!("{means}."))]);
        }
    }
    roff.control("SH", ["A LINE OF FSTAB"]).text([roman(FSTAB)]);
    roff
}

fn put(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a page, without the escapes of its format.
    fn text(name: &str) -> String {
        let (_, page) = pages().into_iter().find(|(found, _)| found == name).expect("the page is written");
        String::from_utf8(page)
            .unwrap()
            .replace("\\-", "-")
            .replace("\\&", "")
            .replace("\\*(Aq", "'")
            .replace("\\(aq", "'")
    }

    #[test]
    fn every_option_of_every_command_is_in_its_manual_page() {
        let mut skylog = Arguments::command();
        skylog.build();
        for command in skylog.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let page = text(&format!("man1/skylog-{name}.1"));
            assert!(text("man1/skylog.1").contains(&format!("skylog-{name}(1)")), "{name}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let shown = match (argument.get_long(), argument.get_short()) {
                    (Some(long), _) => format!("--{long}"),
                    (None, Some(short)) => format!("-{short}"),
                    (None, None) => argument.get_id().to_string().to_uppercase(),
                };
                assert!(page.contains(&shown), "{shown} is missing in {page}");
            }
        }
    }

    #[test]
    fn every_word_after_o_is_in_the_manual_pages_and_in_the_help_of_mount() {
        let help = Arguments::command().find_subcommand("mount").unwrap().clone().render_long_help().to_string();
        for page in [text("man1/skylog-mount.1"), text("man8/mount.skylog.8"), help] {
            for word in WORDS {
                assert!(page.contains(word.spelling) && page.contains(word.means), "{} is missing", word.spelling);
            }
        }
    }

    #[test]
    fn every_word_of_our_own_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        for word in WORDS.iter().filter(|word| CHAPTERS[..2].iter().any(|(_, holds)| holds(&word.read))) {
            let written = ["`{}`", "`{}=", "-o {}`", "-o {}=", "-o {},"].map(|form| form.replace("{}", word.name()));
            assert!(written.iter().any(|form| readme.contains(form)), "{} is missing", word.spelling);
        }
    }

    #[test]
    fn the_helpers_under_their_other_names_have_pages() {
        assert_eq!(text("man8/umount.fuse.skylog.8"), ".so man8/umount.skylog.8\n");
        assert!(text("man8/mount.skylog.8").contains(FSTAB));
    }
}
