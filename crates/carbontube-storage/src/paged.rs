//! From a backend that keeps bytes under keys to a [`Store`] that keeps its promises.
//!
//! Everything that must hold for every store is here, once: what a commit may
//! look like, framing and checking of pages, verification at open, poisoning,
//! and finding out what became of a commit that failed.

use std::ops::{ControlFlow, Range};

use crate::error::{Damage, StoreError};
use crate::head::{Head, HeadError};
use crate::page::{Bounds, Frame, Log, PAGE_BYTES_MAX, PageSeq};
use crate::store::{Commit, InDoubt, Store, Usage, Visit};

/// What a kind of storage has to provide to become a [`Store`] by way of [`PagedStore`].
///
/// It keeps one head and any number of framed pages, and looks into none of
/// them. It need not check anything that can be checked from what it returns.
pub trait Backend: Send {
    /// The head as it was stored last, `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores a batch: all of it or nothing, durable when this returns `Ok`.
    ///
    /// After an error nothing else is asked of the backend but
    /// [`Backend::reopen`], and nothing of the batch may be stored any more
    /// once that has returned `Ok` without it.
    ///
    /// # Errors
    ///
    /// When it was not stored, or may not have been.
    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// The framed page stored under this key, `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows every framed page of a log whose sequence number is `from` or
    /// greater, in order, whatever the head says.
    ///
    /// # Errors
    ///
    /// When they can't be read; an error of `visit` is passed on.
    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError>;

    /// What the store takes up.
    ///
    /// # Errors
    ///
    /// When it can't be found out.
    fn bytes(&mut self) -> Result<u64, StoreError>;

    /// Starts over from what is stored; all of that is durable when this returns `Ok`.
    ///
    /// After a failed sync what can be read may not be durable, and a sync
    /// that succeeds proves nothing: it has to be written again.
    ///
    /// # Errors
    ///
    /// As opening does.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// Where the store is, without any password.
    fn place(&self) -> &str;

    /// What an operator should know about this store's promises.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// What [`Backend::pages`] shows each framed page to.
pub type VisitFrame<'a> = dyn FnMut(PageSeq, &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

/// What a backend has to store in one go.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The number of this commit: one more than that of the head stored now.
    pub commit: u64,
    /// The framed pages to put.
    pub put: Vec<(Log, PageSeq, Vec<u8>)>,
    /// The pages to remove; some of them may be among those to put.
    pub remove: Vec<(Log, Range<u64>)>,
    /// The head to put.
    pub head: Vec<u8>,
}

/// A [`Store`] over a [`Backend`].
#[derive(Debug)]
pub struct PagedStore<B> {
    backend: B,
    head: Head,
    in_doubt: Option<Head>,
    poison: Option<String>,
}

impl<B: Backend> PagedStore<B> {
    /// Makes a new store in an empty backend.
    ///
    /// # Errors
    ///
    /// When the backend fails.
    pub fn create(mut backend: B, identity: [u8; 16]) -> Result<PagedStore<B>, StoreError> {
        let head = Head::new(identity);
        backend.apply(&Batch {
            commit: 0,
            put: Vec::new(),
            remove: Vec::new(),
            head: head.encode().to_vec(),
        })?;
        Ok(PagedStore {
            backend,
            head,
            in_doubt: None,
            poison: None,
        })
    }

    /// Opens the store that is in a backend and verifies all of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] when any page is missing or not as it was stored.
    pub fn open(mut backend: B) -> Result<PagedStore<B>, StoreError> {
        let head = verify(&mut backend)?;
        Ok(PagedStore {
            backend,
            head,
            in_doubt: None,
            poison: None,
        })
    }

    /// The backend beneath.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The head as of the last confirmed commit.
    pub fn head(&self) -> &Head {
        &self.head
    }

    fn check_poison(&self) -> Result<(), StoreError> {
        match &self.poison {
            Some(cause) => Err(StoreError::Poisoned {
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Runs something on the backend; its failure poisons the store.
    fn on_backend<T>(
        &mut self,
        run: impl FnOnce(&mut B) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_poison()?;
        run(&mut self.backend).inspect_err(|error| {
            if error.needs_reopen() {
                self.poison = Some(with_sources(error));
            }
        })
    }
}

impl<B: Backend> Store for PagedStore<B> {
    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.check_poison()?;
        if commit.is_empty() {
            return Ok(());
        }
        let (head, batch) = plan(&self.head, commit)?;
        self.in_doubt = Some(head);
        self.on_backend(|backend| backend.apply(&batch))?;
        self.in_doubt = None;
        self.head = head;
        Ok(())
    }

    fn scan(&mut self, log: Log, from: PageSeq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let bounds = self.head.bounds(log);
        self.on_backend(|backend| scan(backend, log, bounds, from, visit))
    }

    fn read(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        self.check_poison()?;
        if !self.head.bounds(log).contains(seq) {
            return Ok(None);
        }
        let stored = self.on_backend(|backend| backend.page(log, seq))?;
        // One bad page is no reason to stop what goes on with all others.
        let page = match &stored {
            Some(bytes) => Frame::expect(bytes, log, seq),
            None => Err(Damage::Gap {
                log,
                from: seq,
                to: seq.next(),
            }),
        };
        page.map(|page| Some(page.to_vec()))
            .map_err(StoreError::damaged(self.backend.place()))
    }

    fn bounds(&self, log: Log) -> Bounds {
        self.head.bounds(log)
    }

    fn usage(&mut self) -> Result<Usage, StoreError> {
        let bytes = self.on_backend(Backend::bytes)?;
        Ok(Usage {
            bytes,
            journal: self.head.journal,
            history: self.head.history,
        })
    }

    fn reopen(&mut self) -> Result<Option<InDoubt>, StoreError> {
        self.poison = Some("reopening it did not succeed".to_owned());
        let reopened = self.backend.reopen();
        let found = reopened.and_then(|()| verify(&mut self.backend));
        let found = found.inspect_err(|error| {
            let cause = with_sources(error);
            self.poison = Some(format!("reopening it did not succeed: {cause}"));
        })?;
        let outcome = match self.in_doubt {
            Some(wanted) if found == wanted => Some(InDoubt::Applied),
            Some(_) if found == self.head => Some(InDoubt::NotApplied),
            None if found == self.head => None,
            _ => {
                return Err(StoreError::damaged(self.backend.place())(
                    Damage::WentBack {
                        confirmed: self.head.commit,
                        found: found.commit,
                    },
                ));
            }
        };
        self.head = found;
        self.in_doubt = None;
        self.poison = None;
        Ok(outcome)
    }

    fn place(&self) -> &str {
        self.backend.place()
    }

    fn warnings(&self) -> &[String] {
        self.backend.warnings()
    }
}

/// Checks a commit against what is stored and works out what to store.
fn plan(head: &Head, commit: &Commit) -> Result<(Head, Batch), StoreError> {
    let mut after = *head;
    after.commit += 1;
    for page in commit.pages() {
        let (log, seq, bytes) = (page.log, page.seq, page.bytes.len());
        if bytes > PAGE_BYTES_MAX {
            return Err(StoreError::PageTooLarge { log, seq, bytes });
        }
        if bytes == 0 {
            return Err(StoreError::PageEmpty { log, seq });
        }
        let expected = after.bounds(log).next;
        if seq != expected {
            return Err(StoreError::OutOfOrder {
                log,
                expected,
                found: seq,
            });
        }
        after.bounds_mut(log).next = seq.next();
    }
    let mut remove = Vec::new();
    for log in Log::ALL {
        let Some(found) = commit.first(log) else {
            continue;
        };
        let bounds = after.bounds_mut(log);
        if found > bounds.next {
            return Err(StoreError::TruncateBeyondEnd {
                log,
                next: bounds.next,
                found,
            });
        }
        if found > bounds.first {
            remove.push((log, bounds.first.0..found.0));
            bounds.first = found;
        }
    }
    let put = commit
        .pages()
        .iter()
        .map(|page| frame(page.log, page.seq, &page.bytes));
    let batch = Batch {
        commit: after.commit,
        put: put.collect(),
        remove,
        head: after.encode().to_vec(),
    };
    Ok((after, batch))
}

fn frame(log: Log, seq: PageSeq, page: &[u8]) -> (Log, PageSeq, Vec<u8>) {
    (log, seq, Frame { log, seq, page }.encode())
}

/// Reads the head and every page, and returns the head if all is well.
pub(crate) fn verify<B: Backend>(backend: &mut B) -> Result<Head, StoreError> {
    let stored = backend.head()?;
    let head = decode_head(backend.place(), stored.as_deref())?;
    for log in Log::ALL {
        let bounds = head.bounds(log);
        scan(backend, log, bounds, PageSeq(0), &mut |_, _| {
            ControlFlow::Continue(())
        })?;
    }
    Ok(head)
}

pub(crate) fn decode_head(place: &str, stored: Option<&[u8]>) -> Result<Head, StoreError> {
    let Some(stored) = stored else {
        return Err(StoreError::damaged(place)(Damage::HeadMissing));
    };
    Head::decode(stored).map_err(|error| match error {
        HeadError::Version(version) => StoreError::Format {
            place: place.to_owned(),
            found: version.to_string(),
        },
        other => StoreError::damaged(place)(Damage::Head {
            reason: other.to_string(),
        }),
    })
}

/// Shows the pages of a log, which must be exactly those its bounds say.
fn scan<B: Backend>(
    backend: &mut B,
    log: Log,
    bounds: Bounds,
    from: PageSeq,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let place = backend.place().to_owned();
    let damaged = StoreError::damaged(&place);
    let mut expected = bounds.first.max(from).min(bounds.next);
    let mut stopped = false;
    backend.pages(log, from, &mut |seq, bytes| {
        if !bounds.contains(seq) {
            return Err(damaged(Damage::Stray { log, seq }));
        }
        if seq != expected {
            return Err(damaged(Damage::Gap {
                log,
                from: expected,
                to: seq,
            }));
        }
        let page = Frame::expect(bytes, log, seq).map_err(&damaged)?;
        expected = seq.next();
        let flow = visit(seq, page);
        stopped = flow.is_break();
        Ok(flow)
    })?;
    if !stopped && expected != bounds.next {
        return Err(damaged(Damage::Gap {
            log,
            from: expected,
            to: bounds.next,
        }));
    }
    Ok(())
}

/// An error and everything it came from, on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
