"""What is odd about the file of an image that is read, and what is done with it."""

from PIL import ExifTags, Image

from scale_ray.data.pixels import has_16_bits

TURNED = "turned upright, as the EXIF orientation says"
DEEP = "of 16 bits a value the upper 8 are read"
INKS = "CMYK becomes RGB without a colour profile"
PALETTE = "the palette's colours become RGB"
TRANSPARENT = "what is transparent becomes white"
FRAMES = "of an animation the first frame is read"
PAGES = "of several pages the first is read"
OTHER_FORMAT = "not of the format that its suffix says: read as what its bytes are"

# Format as Pillow names it -> suffixes that say so.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jfif"),  # a JPEG with further pictures after it, as phones write
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}


def traits(name: str, data: bytes, image: Image.Image) -> tuple[str, ...]:
    """What is done with an image because it is odd; empty for the usual.

    Args:
        name: of the file.
        data: its bytes.
        image: what `open_image` yields of them.
    """
    several = getattr(image, "is_animated", False) and image.format != "MPO"
    paged = image.format in ("TIFF", "HEIF")
    found = {
        OTHER_FORMAT: not name.lower().endswith(_SUFFIXES.get(image.format or "", ())),
        TURNED: _orientation(image) in range(2, 9),
        DEEP: image.mode.startswith("I;16") or has_16_bits(data, image),
        INKS: image.mode == "CMYK",
        PALETTE: image.mode == "P" and image.format != "GIF" and not image.has_transparency_data,
        TRANSPARENT: image.has_transparency_data,
        FRAMES: several and not paged,
        PAGES: several and paged,
    }
    return tuple(trait for trait, is_so in found.items() if is_so)


def _orientation(image: Image.Image) -> int:
    """As stored: Pillow turns a TIFF when it is loaded, pillow-heif turns an HEIF before."""
    tags = getattr(image, "tag_v2", None) or image.getexif()
    return tags.get(ExifTags.Base.Orientation, 1)
