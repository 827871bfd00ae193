//! Arrow IPC: the messages of a stream, as `save_to_disk` of Hugging Face datasets writes them, or of a file.
//!
//! A file is a stream between a start and a footer, so both are read from front to back, through a pipe too. The crate's own
//! readers take the end of the input for the end of the stream; here the stream must say that it ends, as the file of a writer
//! that was killed ends between two batches. The lengths in a message are not trusted before memory is taken for them.

use super::source::{ARROW_FILE, Bytes, fill};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{Message, root_as_message};
use arrow_schema::{ArrowError, Schema};
use std::io::{self, Read};

/// The mark before a message. Before version 0.15, Arrow wrote none.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes that the columns of one compressed batch may have when unpacked.
const LARGEST_BATCH: u64 = 1 << 31;

/// The batches of a stream.
pub(super) struct ArrowMessages {
    input: Bytes,
    decoder: StreamDecoder,
    /// What the decoder has not yet taken.
    pending: Buffer,
    is_file: bool,
    ended: bool,
}

impl ArrowMessages {
    /// Reads the schema.
    pub fn open(mut input: Bytes) -> Result<(Self, Schema), ArrowError> {
        let is_file = fill(&mut input)?.first() == ARROW_FILE.first();
        if is_file {
            input.read_exact(&mut [0; ARROW_FILE.len()])?;
            skip_padding(&mut input)?;
        }
        let first = read_message(&mut input)?.ok_or_else(|| malformed("a stream without columns"))?;
        let schema = first.schema()?;
        let pending = Buffer::from_vec(first.bytes);
        Ok((ArrowMessages { input, decoder: StreamDecoder::new(), pending, is_file, ended: false }, schema))
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        while !self.ended {
            if !self.pending.is_empty() {
                if let Some(batch) = self.decoder.decode(&mut self.pending)? {
                    return Ok(Some(batch));
                }
                continue;
            }
            match read_message(&mut self.input)? {
                Some(message) => self.pending = Buffer::from_vec(message.bytes),
                None => return self.end(),
            }
        }
        Ok(None)
    }

    /// Checks what follows the stream. A batch without bytes is decoded only now.
    fn end(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        self.ended = true;
        let last = last_bytes(&mut self.input, ARROW_FILE.len())?;
        match (self.is_file, &last[..]) {
            (false, []) | (true, ARROW_FILE) => {}
            (false, _) => return Err(malformed("more bytes after the end of the stream")),
            (true, _) => return Err(malformed("no footer at its end")),
        }
        let mut end = Buffer::from_vec([CONTINUATION, [0; 4]].concat());
        self.decoder.decode(&mut end)
    }
}

impl Iterator for ArrowMessages {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// One message as it stands in the stream: its length, its header and its body.
struct RawMessage {
    bytes: Vec<u8>,
    /// Where the header begins and ends.
    header: std::ops::Range<usize>,
}

impl RawMessage {
    fn header(&self) -> Result<Message<'_>, ArrowError> {
        root_as_message(&self.bytes[self.header.clone()]).map_err(|e| ArrowError::ParseError(e.to_string()))
    }

    fn schema(&self) -> Result<Schema, ArrowError> {
        let schema = self.header()?.header_as_schema().ok_or_else(|| malformed("a stream without columns"))?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err(malformed("numbers in the byte order of another processor"));
        }
        try_fb_to_schema(schema)
    }

    /// Refuses a batch that says to be larger when unpacked than memory should hold.
    fn check_sizes(&self) -> Result<(), ArrowError> {
        let header = self.header()?;
        let batch = header.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        let Some(batch) = batch.or(header.header_as_record_batch()).filter(|batch| batch.compression().is_some())
        else {
            return Ok(());
        };
        let body = &self.bytes[self.header.end..];
        let unpacked = |start: i64| {
            let start = usize::try_from(start).ok()?;
            let bytes = body.get(start..start.checked_add(8)?)?;
            u64::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let sizes = batch.buffers().into_iter().flatten().filter_map(|buffer| unpacked(buffer.offset()));
        match sizes.fold(0, u64::saturating_add) {
            0..=LARGEST_BATCH => Ok(()),
            _ => Err(malformed("a batch of more than 2 GiB")),
        }
    }
}

/// The next message; `None` at the end of the stream.
fn read_message(input: &mut Bytes) -> Result<Option<RawMessage>, ArrowError> {
    let mut bytes = Vec::new();
    read_exactly(input, 4, &mut bytes)?;
    if bytes == CONTINUATION {
        read_exactly(input, 4, &mut bytes)?;
    }
    let start = bytes.len();
    let length = bytes.last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    if length == 0 {
        return Ok(None);
    }
    read_exactly(input, length.into(), &mut bytes)?;
    let header = start..bytes.len();
    let mut message = RawMessage { bytes, header };
    let body = message.header()?.bodyLength();
    read_exactly(input, u64::try_from(body).map_err(|_| malformed("a negative length"))?, &mut message.bytes)?;
    message.check_sizes()?;
    Ok(Some(message))
}

/// Passes over the zeros between the start of a file and its stream. Writers differ in how many there are.
fn skip_padding(input: &mut Bytes) -> io::Result<()> {
    loop {
        let chunk = fill(input)?;
        let zeros = chunk.iter().take_while(|byte| **byte == 0).count();
        let ended = zeros < chunk.len() || chunk.is_empty();
        input.consume(zeros);
        if ended {
            return Ok(());
        }
    }
}

/// Appends `length` bytes, taking memory as they come.
fn read_exactly(input: &mut Bytes, length: u64, to: &mut Vec<u8>) -> Result<(), ArrowError> {
    let read = input.take(length).read_to_end(to)?;
    if read as u64 == length { Ok(()) } else { Err(malformed("its end too early")) }
}

/// Reads on to the end of the input: its last bytes.
fn last_bytes(input: &mut Bytes, count: usize) -> io::Result<Vec<u8>> {
    let mut last = Vec::new();
    loop {
        let chunk = fill(input)?;
        let read = chunk.len();
        if read == 0 {
            return Ok(last);
        }
        last.extend_from_slice(&chunk[read.saturating_sub(count)..]);
        last.drain(..last.len().saturating_sub(count));
        input.consume(read);
    }
}

fn malformed(found: &str) -> ArrowError {
    ArrowError::IpcError(found.to_owned())
}
