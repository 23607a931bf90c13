//! Checkpoints in files: flat images, and increments over the newest one in sled.
//!
//! **Restart = image + increments + log**, and these promises make it right:
//!
//! 1. An image gets its name only when all of it is on disk. Every block of it is checked as it is
//!    read, and only who came to its end has read a state. So an image that is used holds exactly
//!    the state at its index. One that turns out damaged is passed over, with its increments.
//! 2. Increments belong to one image by its check. A batch of them, with its mark, is in sled whole
//!    or not at all, and holds all that changed since the mark before it
//!    ([`CheckpointStore::increment`] refuses any other). So image and increments together hold
//!    exactly the state at the increments' mark, whichever of the batches sled kept. Where sled's
//!    records do not add up to what the mark says, or sled fails in any way, all increments are
//!    dropped, and the state is the image's.
//! 3. The log may be cut up to the *older* of the two images, never up to the newest or to an
//!    increment. So from each place where a restart can begin (the newest image with increments,
//!    without them, the older image) the log leads on. Damage to increments and newest image
//!    together costs time and nothing else. One exception: an image that came from a leader
//!    because the log had a gap stands alone until the next one; whoever restarts checks that the
//!    log begins no later than right after the mark.
//! 4. Nothing is removed before what supersedes it is on disk.
//!
//! The files, in one directory: `N.image`; `N.unfinished`, an image being written; `N.damaged`, one
//! that was passed over, until the next is finished; and `N-M.increments`, sled's directory for the increments over image `N`. `M` makes it new each
//! time: a directory about which there was a doubt is not used again.

mod image;
mod increments;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DirLock, failed, make_dir, refused, remove, sync_dir};
use crate::merge::Merge;
use crate::{CheckpointStore, Fault, IMAGES_KEPT, ImageSink, Loaded, Mark, Record};
use image::{Blocks, Records, Writer};
use increments::{Doubt, Increments};

const IMAGE: &str = "image";
const UNFINISHED: &str = "unfinished";
const DAMAGED: &str = "damaged";
const INCREMENTS: &str = "increments";

/// A [`CheckpointStore`] in a directory.
pub struct Checkpoints {
    shared: Arc<Shared>,
}

/// What the store and its sinks share.
struct Shared {
    dir: PathBuf,
    catalog: Mutex<Catalog>,
    /// Over the newest image. Locked while an increment is written and while an image becomes the
    /// newest, so that these take turns; always before `catalog`.
    increments: Mutex<Option<Increments>>,
    _lock: DirLock,
}

/// What there is. Locked only to look and to change, never across I/O.
struct Catalog {
    /// By index, newest last.
    images: Vec<Image>,
    /// Where the increments over the newest image stand.
    increments: Option<Mark>,
    /// Above any number in the directory.
    next_number: u32,
    /// What was wrong with the image passed over last.
    damage: Option<Fault>,
}

#[derive(Clone)]
struct Image {
    number: u32,
    mark: Mark,
    check: u32,
}

/// The files of a directory, by their names.
#[derive(Default)]
struct Listing {
    images: Vec<u32>,
    increments: Vec<(u32, u32)>,
    unfinished: Vec<u32>,
    damaged: Vec<u32>,
}

impl Checkpoints {
    /// Opens the checkpoints in `dir`, which is made if missing. Of the images it looks at both
    /// ends: a restart would take half as long again if all of them were read for it twice.
    ///
    /// # Errors
    /// When another process has it open, the disk fails, or no image has both its ends.
    pub fn open(dir: &Path) -> Result<Checkpoints, Fault> {
        make_dir(dir)?;
        let lock = DirLock::take(dir)?;
        let listing = Listing::read(dir)?;
        for &number in &listing.unfinished {
            remove(&path_of(dir, number, UNFINISHED))?;
        }
        let (images, damage) = complete_images(dir, &listing.images);
        let passed_over = listing.damaged.last().map(|&number| {
            let path = path_of(dir, number, DAMAGED);
            refused("read the image", &path, "it was found damaged")
        });
        let damage = damage.or(passed_over);
        if images.is_empty()
            && let Some(damage) = damage
        {
            return Err(none_whole(damage));
        }
        let increments = open_increments(dir, images.last(), &listing.increments);
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            catalog: Mutex::new(Catalog {
                images,
                increments: increments.as_ref().and_then(|found| found.mark.clone()),
                next_number: listing.next_number(),
                damage,
            }),
            increments: Mutex::new(increments),
            _lock: lock,
        });
        Ok(Checkpoints { shared })
    }
}

impl Checkpoints {
    /// The newest image with its increments.
    fn read(&self, image: Image, blocks: Blocks) -> Loaded {
        let mut increments = self.shared.increments.lock();
        let mut over = Vec::new();
        if let Some(found) = increments.as_ref() {
            match found.records() {
                Ok(records) => over = records,
                Err(doubt) => self.shared.drop_increments(&mut increments, &doubt),
            }
        }
        let mark = increments.as_ref().and_then(|found| found.mark.clone());
        let below = Reading {
            shared: self.shared.clone(),
            number: image.number,
            records: blocks.records(),
        };
        Loaded {
            mark: mark.unwrap_or(image.mark),
            records: Box::new(Merge::new(below, over.into_iter().map(Ok))),
        }
    }
}

/// The records of an image that is passed over from then on should it turn out damaged.
struct Reading {
    shared: Arc<Shared>,
    number: u32,
    records: Records,
}

impl Iterator for Reading {
    type Item = Result<Record, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.records.next();
        if let Some(Err(fault)) = &next {
            self.shared.pass_over(self.number, fault);
        }
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

/// The images that begin and end as images do, by index, and what was wrong with another.
fn complete_images(dir: &Path, numbers: &[u32]) -> (Vec<Image>, Option<Fault>) {
    let mut images = Vec::new();
    let mut damage = None;
    for &number in numbers {
        match Blocks::open(&path_of(dir, number, IMAGE)) {
            Ok((mark, blocks)) => images.push(Image {
                number,
                mark,
                check: blocks.check(),
            }),
            Err(fault) => {
                warn_of(&fault);
                damage = Some(fault);
            }
        }
    }
    images.sort_by_key(|image| (image.mark.index, image.number));
    (images, damage)
}

fn warn_of(fault: &Fault) {
    tracing::warn!(%fault, "an image is damaged, the one before it is used");
}

fn none_whole(fault: Fault) -> Fault {
    Fault {
        cause: format!(
            "{}; no image is whole: remove this member from the cluster and add it again with an \
             empty data directory, or restore a backup if it is the only one",
            fault.cause
        ),
        ..fault
    }
}

/// The increments over the newest image, if there are any without doubt. Removes all others.
fn open_increments(
    dir: &Path,
    newest: Option<&Image>,
    listed: &[(u32, u32)],
) -> Option<Increments> {
    let mut found: Option<Increments> = None;
    for &(image, number) in listed {
        let path = increments_path(dir, image, number);
        let base = newest.filter(|newest| newest.number == image && found.is_none());
        match base.map(|base| Increments::open(&path, base.check)) {
            Some(Ok(increments)) => found = Some(increments),
            Some(Err(doubt)) => {
                doubted(&path, &doubt);
                increments::remove(&path);
            }
            None => increments::remove(&path),
        }
    }
    found
}

fn doubted(path: &Path, doubt: &Doubt) {
    tracing::warn!(path = %path.display(), %doubt, "increments are dropped, the log has the rest");
}

impl CheckpointStore for Checkpoints {
    fn load(&mut self) -> Result<Option<Loaded>, Fault> {
        loop {
            let (newest, damage) = {
                let catalog = self.shared.catalog.lock();
                (catalog.images.last().cloned(), catalog.damage.clone())
            };
            let Some(image) = newest else {
                return damage.map_or(Ok(None), |damage| Err(none_whole(damage)));
            };
            match Blocks::open(&path_of(&self.shared.dir, image.number, IMAGE)) {
                Ok((_, blocks)) => return Ok(Some(self.read(image, blocks))),
                Err(fault) => self.shared.pass_over(image.number, &fault),
            }
        }
    }

    fn begin_image(&mut self, mark: Mark) -> Result<Box<dyn ImageSink>, Fault> {
        let number = self.shared.catalog.lock().take_number();
        let unfinished = path_of(&self.shared.dir, number, UNFINISHED);
        let writer = Writer::create(&unfinished, &mark)?;
        Ok(Box::new(Sink {
            shared: self.shared.clone(),
            number,
            mark,
            writer: Some(writer),
        }))
    }

    fn newest(&self) -> Option<Mark> {
        self.shared.catalog.lock().newest().cloned()
    }

    fn increment(&mut self, since: u64, mark: Mark, records: Vec<Record>) -> Result<bool, Fault> {
        let shared = &*self.shared;
        let mut increments = shared.increments.lock();
        let Some((image, number)) = shared.catalog.lock().base(since) else {
            return Ok(false);
        };
        if !increments::suits(&mark, &records) {
            return Ok(false);
        }
        if increments.is_none() {
            let path = increments_path(&shared.dir, image.number, number);
            match Increments::open(&path, image.check) {
                Ok(begun) => *increments = Some(begun),
                Err(doubt) => {
                    doubted(&path, &doubt);
                    increments::remove(&path);
                    return Ok(false);
                }
            }
        }
        let laid = increments
            .as_mut()
            .expect("they were opened")
            .lay(mark.clone(), records);
        match laid {
            Ok(()) => {
                shared.catalog.lock().increments = Some(mark);
                Ok(true)
            }
            Err(doubt) => {
                shared.drop_increments(&mut increments, &doubt);
                Ok(false)
            }
        }
    }

    fn log_needed_from(&self) -> u64 {
        match self.shared.catalog.lock().images.as_slice() {
            [older, _] => older.mark.index,
            _ => 0,
        }
    }
}

impl Shared {
    fn drop_increments(&self, increments: &mut Option<Increments>, doubt: &Doubt) {
        if let Some(increments) = increments.take() {
            self.catalog.lock().increments = None;
            doubted(&increments.dir, doubt);
            increments.discard();
        }
    }

    /// Uses a damaged image no more, nor the increments over it. Its file gets another name, so that
    /// it is not taken for the newest image again, and increments over the one before for stale.
    fn pass_over(&self, number: u32, fault: &Fault) {
        warn_of(fault);
        let mut increments = self.increments.lock();
        let damaged = path_of(&self.dir, number, DAMAGED);
        let renamed = fs::rename(path_of(&self.dir, number, IMAGE), &damaged)
            .map_err(|error| failed("rename the damaged image", &damaged, &error));
        if let Err(fault) = renamed.and_then(|()| sync_dir(&self.dir)) {
            tracing::warn!(%fault, "a damaged image keeps its name");
        }
        let mut catalog = self.catalog.lock();
        let was_newest = catalog.images.last().is_some_and(|i| i.number == number);
        catalog.images.retain(|image| image.number != number);
        catalog.damage = Some(fault.clone());
        if was_newest {
            catalog.increments = None;
        }
        drop(catalog);
        if was_newest && let Some(increments) = increments.take() {
            increments.discard();
        }
    }

    /// Gives an image that is on disk its name, and removes what it supersedes.
    fn take_image(&self, image: Image) -> Result<(), Fault> {
        let mut increments = self.increments.lock();
        let unfinished = path_of(&self.dir, image.number, UNFINISHED);
        fs::rename(&unfinished, path_of(&self.dir, image.number, IMAGE))
            .map_err(|error| failed("rename the image", &unfinished, &error))?;
        sync_dir(&self.dir)?;
        let number = image.number;
        let kept: Vec<_> = {
            let mut catalog = self.catalog.lock();
            catalog.images.push(image);
            catalog
                .images
                .sort_by_key(|image| (image.mark.index, image.number));
            let excess = catalog.images.len().saturating_sub(IMAGES_KEPT);
            catalog.images.drain(..excess);
            let kept: Vec<_> = catalog.images.iter().map(|image| image.number).collect();
            if kept.last() == Some(&number) {
                catalog.increments = None;
            }
            kept
        };
        if kept.last() == Some(&number)
            && let Some(increments) = increments.take()
        {
            increments.discard();
        }
        // Damaged images that were passed over go, too.
        let listing = Listing::read(&self.dir)?;
        for number in listing.damaged {
            remove(&path_of(&self.dir, number, DAMAGED))?;
        }
        for number in listing.images {
            if !kept.contains(&number) {
                remove(&path_of(&self.dir, number, IMAGE))?;
            }
        }
        Ok(())
    }
}

impl Catalog {
    fn newest(&self) -> Option<&Mark> {
        let image = self.images.last().map(|image| &image.mark);
        self.increments.as_ref().or(image)
    }

    /// The image for an increment over the checkpoint at `since`, and a number for the increment's
    /// directory; `None` when that is not the newest checkpoint.
    fn base(&mut self, since: u64) -> Option<(Image, u32)> {
        let image = self.images.last()?.clone();
        let newest = self.newest().is_some_and(|newest| newest.index == since);
        newest.then(|| (image, self.take_number()))
    }

    fn take_number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }
}

/// An image being written. Dropped before it is finished, it leaves nothing.
struct Sink {
    shared: Arc<Shared>,
    number: u32,
    mark: Mark,
    /// `None` once finished.
    writer: Option<Writer>,
}

impl ImageSink for Sink {
    fn push(&mut self, record: Record) -> Result<(), Fault> {
        self.writer
            .as_mut()
            .expect("it is not finished")
            .push(record)
    }

    fn finish(mut self: Box<Self>) -> Result<(), Fault> {
        let check = self.writer.take().expect("it is not finished").finish()?;
        self.shared.take_image(Image {
            number: self.number,
            mark: self.mark.clone(),
            check,
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.writer.take().is_some()
            && let Err(fault) = remove(&path_of(&self.shared.dir, self.number, UNFINISHED))
        {
            tracing::warn!(%fault, "an unfinished image stays until the next start");
        }
    }
}

impl Listing {
    fn read(dir: &Path) -> Result<Listing, Fault> {
        let failure = |error| failed("list the checkpoint directory", dir, &error);
        let mut listing = Listing::default();
        for entry in fs::read_dir(dir).map_err(failure)? {
            listing.take(Path::new(&entry.map_err(failure)?.file_name()));
        }
        listing.images.sort_unstable();
        listing.increments.sort_unstable();
        Ok(listing)
    }

    /// Files with other names are not ours.
    fn take(&mut self, name: &Path) -> Option<()> {
        let stem = name.file_stem()?.to_str()?;
        match name.extension().and_then(OsStr::to_str)? {
            IMAGE => self.images.push(stem.parse().ok()?),
            UNFINISHED => self.unfinished.push(stem.parse().ok()?),
            DAMAGED => self.damaged.push(stem.parse().ok()?),
            INCREMENTS => {
                let (image, number) = stem.split_once('-')?;
                self.increments
                    .push((image.parse().ok()?, number.parse().ok()?));
            }
            _ => {}
        }
        Some(())
    }

    fn next_number(&self) -> u32 {
        let increments = self.increments.iter().map(|&(_, number)| number);
        let others = self.images.iter().chain(&self.unfinished);
        let others = others.chain(&self.damaged).copied();
        increments
            .chain(others)
            .max()
            .map_or(1, |newest| newest + 1)
    }
}

fn path_of(dir: &Path, number: u32, kind: &str) -> PathBuf {
    dir.join(format!("{number:010}.{kind}"))
}

fn increments_path(dir: &Path, image: u32, number: u32) -> PathBuf {
    dir.join(format!("{image:010}-{number:010}.{INCREMENTS}"))
}
