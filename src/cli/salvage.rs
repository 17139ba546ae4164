//! `skylog salvage STATE OUT`: what a state directory holds that the store may not have, as files and a list.

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::remote_words::RemoteWords;
use super::salvage_out::Out;
use super::store_arg::{SUPERBLOCK, StoreArg};
use super::{output, size, state_dir, state_root, world};
use skylog::format::names::LOCK;
use skylog::media::{LocalDisk, Owner};
use skylog::salvage::Salvage;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Write what a state directory holds and its store may not have as files, with a list of them: after another machine has taken
/// the filesystem over, or the store is gone. The state directory stays as it is.
#[derive(clap::Args)]
pub struct SalvageCommand {
    /// The state directory. It must not be mounted.
    state: PathBuf,
    /// A new or empty directory: `files/` in it will hold whole files, `list` what was made, changed or removed.
    out: PathBuf,
    /// The store, for the parts of changed files that were shipped before, if it is not the one that the state directory names.
    #[arg(long)]
    store: Option<StoreArg>,
    #[command(flatten)]
    remote: RemoteWords,
}

impl SalvageCommand {
    /// Ends with 1 if a file could not be written whole.
    pub fn run(&self) -> Outcome {
        let state = self.state.canonicalize().map_err(|e| failed(&self.state, &e))?;
        if state_dir::filesystem(&state)?.is_none() {
            return Err(Failure::failed(format_args!(
                "{} is not a state directory of skylog: it holds no journal with its MANIFEST",
                state.display()
            )));
        }
        let store = self.store_of(&state)?;
        let owner = Owner::this_process("nowhere, it is being salvaged").map_err(Failure::failed)?;
        let what = format!("the state directory {}", state.display());
        let _lock = world::lock_folder(&state, LOCK, &what, &owner, Duration::ZERO)?;
        prepare(&self.out)?;
        let out = self.out.canonicalize().map_err(|e| failed(&self.out, &e))?;
        if out.starts_with(&state) || state.starts_with(&out) {
            return Err(Failure::usage("what is salvaged cannot lie in the state directory, nor around it"));
        }
        let progress = Progress::bytes("reading");
        let opened = Salvage::open(store.open()?, Arc::new(LocalDisk::new(&state)), &mut |done, total| {
            progress.at(done, total);
        });
        progress.end();
        let salvage = opened.map_err(|e| world::refused(&store, Some(&state), &e))?;
        let written = Out::new(&out).and_then(|mut out| out.write(&salvage))?;
        let (shipped, last) = salvage.range();
        output::line(format_args!(
            "batches after {shipped} up to {last}: {} files with {}, {} directories, {} other, {} names removed; {}",
            written.files,
            size::show(written.bytes),
            written.directories,
            written.others,
            written.removed,
            out.join("list").display()
        ));
        match written.incomplete {
            0 => Ok(()),
            n => Err(Failure::failed(format_args!(
                "{n} files are not whole: their lines in {} say what is missing",
                out.join("list").display()
            ))),
        }
    }

    /// The store that was named, else that of the file `store`, else the folder around the state directory.
    fn store_of(&self, state: &Path) -> Result<StoreArg, Failure> {
        let named = match (&self.store, state_root::read(state)?) {
            (Some(store), _) => store.clone(),
            (None, Some(file)) => file.url.parse().map_err(Failure::failed)?,
            (None, None) => match state.parent().filter(|folder| folder.join(SUPERBLOCK).is_file()) {
                Some(folder) => folder.to_string_lossy().parse().map_err(Failure::failed)?,
                None => {
                    return Err(Failure::usage(format_args!(
                        "{} does not say which store it belongs to; give it with --store STORE",
                        state.display()
                    )));
                }
            },
        };
        named.lasting(&self.remote)
    }
}

/// Makes the directory, or makes sure that it is empty.
fn prepare(out: &Path) -> Outcome {
    match fs::create_dir(out) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => match fs::read_dir(out).map(|mut entries| entries.next()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Failure::failed(format_args!("{} is not empty; give a new directory", out.display()))),
            Err(e) => Err(failed(out, &e)),
        },
        made => made.map_err(|e| failed(out, &e)),
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Failure {
    Failure::failed(format_args!("{}: {e}", path.display()))
}
