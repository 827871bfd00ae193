//! Where output goes: a file that appears whole or not at all, or a stream; compressed or not.
//!
//! A file is written under a temporary name beside its destination and renamed when it is finished,
//! so that neither an error nor Ctrl-C leaves half a file. Streams (`-`, pipes, devices) get their
//! bytes as they come.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Compression of an output, by the end of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

/// A destination with its compression.
pub(super) enum Sink {
    Plain(Buffered),
    Gzip(flate2::write::GzEncoder<Buffered>),
    Zstd(zstd::stream::write::Encoder<'static, Buffered>),
}

type Buffered = BufWriter<Target>;

pub(super) enum Target {
    Stdout(io::Stdout),
    Stream(File),
    Temporary { file: NamedTempFile, path: PathBuf },
}

impl Sink {
    /// Opens `path`; `-` is standard output.
    pub fn create(path: &Path, compression: Compression) -> io::Result<Sink> {
        let buffered = BufWriter::with_capacity(1 << 16, Target::create(path)?);
        Ok(match compression {
            Compression::None => Sink::Plain(buffered),
            Compression::Gzip => Sink::Gzip(flate2::write::GzEncoder::new(buffered, flate2::Compression::default())),
            Compression::Zstd => {
                Sink::Zstd(zstd::stream::write::Encoder::new(buffered, zstd::DEFAULT_COMPRESSION_LEVEL)?)
            }
        })
    }

    /// Writes what is buffered and gives the file its name.
    pub fn finish(self) -> io::Result<()> {
        let buffered = match self {
            Sink::Plain(buffered) => buffered,
            Sink::Gzip(encoder) => encoder.finish()?,
            Sink::Zstd(encoder) => encoder.finish()?,
        };
        buffered.into_inner().map_err(io::IntoInnerError::into_error)?.commit()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(to) => to.write(bytes),
            Sink::Gzip(to) => to.write(bytes),
            Sink::Zstd(to) => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(to) => to.flush(),
            Sink::Gzip(to) => to.flush(),
            Sink::Zstd(to) => to.flush(),
        }
    }
}

impl Target {
    fn create(path: &Path) -> io::Result<Target> {
        // /dev/stdout may be a link to a file, which a rename would replace under the caller's feet.
        if path == Path::new("-") || path == Path::new("/dev/stdout") {
            return Ok(Target::Stdout(io::stdout()));
        }
        // A symbolic link keeps pointing where it did: what it points at is replaced.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // Renaming onto a pipe or /dev/null would replace it by a file.
            Ok(found) if !found.is_file() => Ok(Target::Stream(OpenOptions::new().write(true).open(&path)?)),
            _ => Ok(Target::Temporary { file: temporary_beside(&path)?, path }),
        }
    }

    fn commit(self) -> io::Result<()> {
        match self {
            Target::Temporary { file, path } => file.persist(path).map(drop).map_err(|e| e.error),
            Target::Stdout(mut stream) => stream.flush(),
            Target::Stream(mut stream) => stream.flush(),
        }
    }
}

fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kudos-").suffix(".partial");
    // `tempfile` makes private files; the output should have the rights of any other new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory.unwrap_or(Path::new(".")))
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout(to) => to.write(bytes),
            Target::Stream(to) => to.write(bytes),
            Target::Temporary { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout(to) => to.flush(),
            Target::Stream(to) => to.flush(),
            Target::Temporary { file, .. } => file.flush(),
        }
    }
}
