//! scripts/install and scripts/uninstall, in a folder of their own, with the program that was built for the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a script; what it printed.
fn script(name: &str, prefix: &str, destination: Option<&Path>) -> Result<String, String> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command.args(["--prefix", prefix]).env("SKYLOG", env!("CARGO_BIN_EXE_skylog")).env_remove("DESTDIR");
    let output = command.envs(destination.map(|folder| ("DESTDIR", folder))).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// All that lies below a folder, with what links point to.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<PathBuf>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = BTreeMap::new();
    for path in entries {
        found.insert(path.clone(), fs::read_link(&path).ok());
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
    }
    found
}

#[test]
fn what_is_installed_works_and_is_taken_away_again() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("prefix");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::write(prefix.join("bin/other"), "somebody else's").unwrap();
    let before = tree(folder.path());
    let at = |name: &str| prefix.join(name);
    let said = script("install", prefix.to_str().unwrap(), None).unwrap();
    assert!(
        said.contains(&format!("ln -s {}", at("sbin/{mount,umount}.{skylog,fuse.skylog} /sbin/").display())),
        "{said}"
    );

    let version = |program: &str| Command::new(at(program)).arg("--version").output().unwrap();
    assert!(version("bin/skylog").stdout.starts_with(b"skylog "));
    assert!(version("sbin/mount.skylog").stdout.starts_with(b"mount.skylog "));
    assert!(version("sbin/umount.fuse.skylog").stdout.starts_with(b"umount.skylog "));
    assert_eq!(fs::metadata(at("bin/skylog")).unwrap().permissions().mode() & 0o777, 0o755);
    let man = Command::new("man").arg("-l").arg(at("share/man/man8/mount.skylog.8")).output();
    assert!(man.is_err() || String::from_utf8_lossy(&man.unwrap().stdout).contains("journal_size=SIZE"));
    let bash = at("share/bash-completion/completions/skylog");
    let complete = format!(
        ". {} && COMP_WORDS=(skylog um) COMP_CWORD=1 && _skylog skylog um skylog; echo ${{COMPREPLY[@]}}",
        bash.display()
    );
    let completed = Command::new("bash").args(["-c", &complete]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "umount", "{completed:?}");
    let unit = at("lib/systemd/system/skylog@.service");
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    assert!(fs::read_to_string(unit).unwrap().contains(&format!("ExecStart={}/skylog mount", at("bin").display())));

    let listed = || {
        let manifest = fs::read_to_string(at("lib/skylog/manifest")).unwrap();
        manifest.lines().map(String::from).collect::<BTreeSet<String>>()
    };
    let installed = (tree(folder.path()), listed());
    script("install", prefix.to_str().unwrap(), None).unwrap();
    assert!((tree(folder.path()), listed()) == installed, "a second run changed something");
    script("uninstall", prefix.to_str().unwrap(), None).unwrap();
    assert_eq!(tree(folder.path()), before);
    let said = script("uninstall", prefix.to_str().unwrap(), None).unwrap_err();
    assert!(said.contains("nothing is installed"), "{said}");
}

#[test]
fn what_has_changed_since_stays() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("prefix");
    script("install", prefix.to_str().unwrap(), None).unwrap();
    let (page, link) = (prefix.join("share/man/man1/skylog.1"), prefix.join("sbin/mount.skylog"));
    fs::write(&page, "better").unwrap();
    fs::remove_file(&link).unwrap();
    fs::write(&link, "somebody else's").unwrap();
    fs::write(prefix.join("sbin/other"), "mine").unwrap();
    let said = script("uninstall", prefix.to_str().unwrap(), None).unwrap();
    assert_eq!(said.matches("has changed since, and stays").count(), 2, "{said}");
    let left: Vec<PathBuf> = tree(&prefix).into_keys().filter(|path| path.is_file()).collect();
    assert_eq!(left, [link, prefix.join("sbin/other"), page]);
}

#[test]
fn a_package_has_the_helpers_where_mount_looks() {
    for (prefix, program) in
        [("/usr/local", "/usr/local/bin/skylog"), ("/usr", "/usr/bin/skylog"), ("/", "/bin/skylog")]
    {
        let folder = tempfile::tempdir().unwrap();
        script("install", prefix, Some(folder.path())).unwrap();
        let inside = |path: &str| folder.path().join(path.trim_start_matches('/'));
        assert!(inside(program).is_file());
        let helper = fs::read_link(inside("/sbin/umount.fuse.skylog")).unwrap();
        // Where the link lies in the same tree as the program it may be relative.
        assert!(helper == Path::new(program) || (prefix == "/" && helper == Path::new("../bin/skylog")), "{helper:?}");
        let unit =
            fs::read_to_string(inside(&format!("{}/lib/systemd/system/skylog@.service", prefix.trim_end_matches('/'))));
        assert!(unit.unwrap().contains(&format!("ExecStart={program} mount")));
        script("uninstall", prefix, Some(folder.path())).unwrap();
        assert!(tree(folder.path()).is_empty(), "{:?}", tree(folder.path()));
    }
}

#[test]
fn a_package_is_made_in_a_folder_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("a/package");
    script("install", "/usr", Some(&package)).unwrap();
    assert!(package.join("usr/bin/skylog").is_file());
    script("uninstall", "/usr", Some(&package)).unwrap();
    assert!(tree(&package).is_empty());
}
