//! The package of a workbook: a zip archive of XML parts.
//!
//! This module knows parts; it must not know sheets. Sizes that the archive declares are not trusted: all parts together are
//! unpacked to at most [`LARGEST_WORKBOOK`] bytes, and one piece of XML (a tag, a text) may be as long as a row. Parts are read
//! from the file itself, with their checksums, as a sheet is read while the rows before it are used.

use super::super::source::Refusal;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zip::{CompressionMethod, ZipArchive};

/// Bytes that the parts of a workbook may have when unpacked.
const LARGEST_WORKBOOK: u64 = 1 << 30;

/// Why a workbook cannot be read.
#[derive(Debug)]
pub(in crate::data) enum WorkbookFault {
    /// It is none.
    Refused(Refusal),
    /// No sheet has rows.
    Empty,
    /// What is wrong with it.
    Damaged(String),
}

impl From<io::Error> for WorkbookFault {
    fn from(error: io::Error) -> Self {
        WorkbookFault::Damaged(error.to_string())
    }
}

impl From<quick_xml::Error> for WorkbookFault {
    fn from(error: quick_xml::Error) -> Self {
        match error {
            quick_xml::Error::Io(error) => WorkbookFault::Damaged(error.to_string()),
            other => WorkbookFault::Damaged(other.to_string()),
        }
    }
}

/// Where the bytes of a part are in the file.
struct Place {
    start: u64,
    packed: u64,
    deflated: bool,
    checksum: u32,
}

/// A zip archive whose entries are read one at a time.
pub(super) struct Package {
    file: File,
    /// By name, in lower case.
    places: HashMap<String, Place>,
    /// Bytes that may still be unpacked.
    left: Arc<AtomicU64>,
    /// Bytes that one piece of XML may have.
    limit: usize,
}

impl Package {
    pub fn open(file: File, limit: usize) -> Result<Package, WorkbookFault> {
        let damaged = |error: zip::result::ZipError| WorkbookFault::Damaged(error.to_string());
        let mut archive = ZipArchive::new(file.try_clone()?).map_err(damaged)?;
        let mut places = HashMap::new();
        for at in 0..archive.len() {
            let entry = archive.by_index_raw(at).map_err(damaged)?;
            let known = matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated);
            let (true, false, Some(start)) = (known, entry.encrypted(), entry.data_start()) else { continue };
            let deflated = entry.compression() == CompressionMethod::Deflated;
            let place = Place { start, packed: entry.compressed_size(), deflated, checksum: entry.crc32() };
            let name = entry.name().map_err(damaged)?.to_lowercase().replace('\\', "/");
            if places.insert(name, place).is_some() {
                return Err(WorkbookFault::Damaged("two parts of one name".to_owned()));
            }
        }
        Ok(Package { file, places, left: Arc::new(AtomicU64::new(LARGEST_WORKBOOK)), limit })
    }

    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(&name.to_lowercase())
    }

    /// The bytes of a part, unpacked; `None` if there is no such part. Only one part may be read at a time.
    pub fn part(&self, name: &str) -> Result<Option<Part>, WorkbookFault> {
        let Some(place) = self.places.get(&name.to_lowercase()) else {
            return Ok(None);
        };
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(place.start))?;
        let packed = BufReader::new(file.take(place.packed));
        let bytes: Box<dyn Read + Send> =
            if place.deflated { Box::new(flate2::bufread::DeflateDecoder::new(packed)) } else { Box::new(packed) };
        let (left, checksum) = (self.left.clone(), place.checksum);
        Ok(Some(Part { bytes, left, checksum, found: flate2::Crc::new() }))
    }

    /// The XML of a part.
    pub fn xml(&self, name: &str) -> Result<Option<Xml>, WorkbookFault> {
        Ok(self.part(name)?.map(|part| Xml::new(part, self.limit)))
    }
}

/// The bytes of one part; its end checks them.
pub(super) struct Part {
    bytes: Box<dyn Read + Send>,
    left: Arc<AtomicU64>,
    checksum: u32,
    found: flate2::Crc,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let invalid = |words: &str| Err(io::Error::new(io::ErrorKind::InvalidData, words));
        let count = self.bytes.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.found.sum() != self.checksum {
            return invalid("a part whose checksum is another");
        }
        self.found.update(&buffer[..count]);
        let left = self.left.load(Ordering::Relaxed).checked_sub(count as u64);
        let Some(left) = left else {
            return invalid("more than 1 GiB when unpacked (if that is right, save it as CSV)");
        };
        self.left.store(left, Ordering::Relaxed);
        Ok(count)
    }
}

/// Bounds what is read without a pause.
struct Metered {
    part: BufReader<Part>,
    left: usize,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.part.read(buffer)
    }
}

impl BufRead for Metered {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a text longer than a row may be"));
        }
        self.part.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        self.part.consume(count);
    }
}

/// The events of one XML part. An empty element is a start and an end.
pub(super) struct Xml {
    reader: quick_xml::Reader<Metered>,
    buffer: Vec<u8>,
    limit: usize,
}

impl Xml {
    fn new(part: Part, limit: usize) -> Self {
        let mut reader = quick_xml::Reader::from_reader(Metered { part: BufReader::new(part), left: limit });
        reader.config_mut().expand_empty_elements = true;
        Xml { reader, buffer: Vec::new(), limit }
    }

    /// The next event. The end of the part is an error: it comes inside the element that is being read.
    pub fn next(&mut self) -> Result<Event<'_>, WorkbookFault> {
        match self.next_or_end()? {
            Event::Eof => Err(WorkbookFault::Damaged("a part that breaks off".to_owned())),
            event => Ok(event),
        }
    }

    pub fn next_or_end(&mut self) -> Result<Event<'_>, WorkbookFault> {
        self.buffer.clear();
        self.reader.get_mut().left = self.limit;
        Ok(self.reader.read_event_into(&mut self.buffer)?)
    }

    /// Reads on to the end of the part, which checks it.
    pub fn finish(&mut self) -> Result<(), WorkbookFault> {
        self.each_start(|_| Ok(()))
    }

    /// Calls `each` with every element of the part that starts.
    pub fn each_start(
        &mut self,
        mut each: impl FnMut(&BytesStart<'_>) -> Result<(), WorkbookFault>,
    ) -> Result<(), WorkbookFault> {
        loop {
            match self.next_or_end()? {
                Event::Start(tag) => each(&tag)?,
                Event::Eof => return Ok(()),
                _ => {}
            }
        }
    }

    /// The text up to the end of the element that has just started.
    pub fn text(&mut self) -> Result<String, WorkbookFault> {
        let (mut text, mut depth) = (String::new(), 1);
        while depth > 0 {
            match self.next()? {
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                event => push_text(&event, &mut text)?,
            }
            if text.len() > self.limit {
                return Err(WorkbookFault::Damaged("a text longer than a row may be".to_owned()));
            }
        }
        Ok(text)
    }

    /// The same of an element whose text is in pieces, each a `t`, but for those that say how a text is pronounced.
    pub fn pieces(&mut self) -> Result<String, WorkbookFault> {
        let (mut text, mut depth) = (String::new(), 1);
        while depth > 0 {
            match self.next()? {
                Event::Start(tag) if tag.local_name().as_ref() == "t" => text += &self.text()?,
                Event::Start(tag) if tag.local_name().as_ref() == "rPh" => drop(self.text()?),
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                _ => {}
            }
            if text.len() > self.limit {
                return Err(WorkbookFault::Damaged("a text longer than a row may be".to_owned()));
            }
        }
        Ok(text)
    }
}

/// Adds what an event says in characters.
fn push_text(event: &Event<'_>, text: &mut String) -> Result<(), WorkbookFault> {
    match event {
        Event::Text(piece) => text.push_str(&piece.xml10_content()),
        Event::CData(piece) => text.push_str(&piece.xml10_content()),
        Event::GeneralRef(name) => match (name.resolve_char_ref()?, quick_xml::escape::resolve_predefined_entity(name))
        {
            (Some(char), _) => text.push(char),
            (None, Some(known)) => text.push_str(known),
            (None, None) => return Err(WorkbookFault::Damaged(format!("the unknown entity {:?}", &**name))),
        },
        _ => {}
    }
    Ok(())
}

/// The value of an attribute, whatever the prefix of its name.
pub(super) fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = tag.attributes();
    let found =
        attributes.with_checks(false).flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    found.normalized_value(XmlVersion::Implicit1_0).ok().map(|value| value.into_owned())
}
