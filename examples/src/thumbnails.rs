use std::io::{BufReader, Cursor};

use image::{
    DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, ImageResult, Limits,
    codecs::jpeg::JpegEncoder,
};
use windlass::prelude::*;

use crate::{Problem, Workspace, problem::decide};

/// The payload of `image.thumbnails`.
#[derive(Debug, Clone, Serialize, Deserialize, Job)]
#[job(kind = "image.thumbnails", queue = "images", max_attempts = 5, timeout = "2m")]
pub struct MakeThumbnails {
    /// The picture, a PNG or JPEG file of the workspace.
    pub image: String,
    /// The sizes wanted: each thumbnail fits into a square of that many pixels.
    pub sizes: Vec<u32>,
}

/// The result of `image.thumbnails`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Thumbnails {
    /// What was written, in the order of the sizes.
    pub thumbnails: Vec<Thumbnail>,
}

/// One thumbnail.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Thumbnail {
    /// Where it is, in the workspace's output.
    pub path: String,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
}

/// Handles `image.thumbnails`, on a thread of its own: it computes, and does not wait.
///
/// Idempotent: the names follow from the payload, and each file replaces an older one in one step, so that another
/// attempt writes the same files again, and a reader never finds half of one.
///
/// # Errors
/// Discarded when the payload or the picture is unusable, else retried.
pub fn make_thumbnails(
    job: MakeThumbnails,
    ctx: Context,
    workspace: State<Workspace>,
) -> Result<Thumbnails, JobError> {
    thumbnails(&workspace, &job, &|| ctx.cancelled().is_cancelled()).map_err(decide)
}

const MOST_SIZES: usize = 16;
const LARGEST_SIZE: u32 = 4096;
const JPEG_QUALITY: u8 = 85;

/// Makes the thumbnails, unless it is told to stop.
///
/// # Errors
/// See [`Problem`].
pub fn thumbnails(
    workspace: &Workspace,
    job: &MakeThumbnails,
    stop: &dyn Fn() -> bool,
) -> Result<Thumbnails, Problem> {
    if job.sizes.is_empty() || job.sizes.len() > MOST_SIZES {
        return Err(Problem::Payload(format!("sizes: between 1 and {MOST_SIZES} are possible")));
    }
    if let Some(size) = job.sizes.iter().find(|size| !(1..=LARGEST_SIZE).contains(*size)) {
        return Err(Problem::Payload(format!("sizes: {size} is not between 1 and {LARGEST_SIZE}")));
    }
    let (picture, format) = decode(workspace, &job.image)?;
    let mut thumbnails = Vec::with_capacity(job.sizes.len());
    for size in &job.sizes {
        if stop() {
            return Err(Problem::Stopped);
        }
        // Never larger than the picture itself.
        let size_now = (*size).min(picture.width().max(picture.height()));
        let small = picture.thumbnail(size_now, size_now);
        let bytes = encode(&small, format).map_err(|error| Problem::content(&job.image, error))?;
        let path = name(&job.image, *size, format);
        workspace.write(&path, &bytes)?;
        thumbnails.push(Thumbnail { path, width: small.width(), height: small.height() });
    }
    Ok(Thumbnails { thumbnails })
}

/// Reads the picture, the right way up, unless it would need more than 512 MiB of memory.
fn decode(workspace: &Workspace, path: &str) -> Result<(DynamicImage, ImageFormat), Problem> {
    let file = workspace.open(path)?;
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(Problem::io(path))?;
    let format = match reader.format() {
        Some(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        _ => return Err(Problem::content(path, "neither a PNG nor a JPEG picture")),
    };
    let decode = || -> ImageResult<DynamicImage> {
        let mut decoder = reader.into_decoder()?;
        // A decoder on its own makes room for whatever size the file claims.
        Limits::default().reserve(decoder.total_bytes())?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    };
    let picture = decode().map_err(|error| match error {
        // A file that ends too early is broken, whatever else goes wrong in reading may pass.
        ImageError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            Problem::io(path)(error)
        }
        error => Problem::content(path, error),
    })?;
    Ok((picture, format))
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpeg => {
            picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        }
        _ => picture.write_to(&mut Cursor::new(&mut bytes), format)?,
    }
    Ok(bytes)
}

/// A folder for each picture, so that no two share a name.
fn name(image: &str, size: u32, format: ImageFormat) -> String {
    let extension = if format == ImageFormat::Jpeg { "jpg" } else { "png" };
    format!("thumbnails/{image}/{size}.{extension}")
}
