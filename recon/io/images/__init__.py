"""Photos, masks and video frames as arrays, and arrays at other sizes."""

from recon.io.images.photos import (
    PHOTO_ENDINGS,
    check_ending,
    exif_focal_px,
    find_mask,
    find_photos,
    open_picture,
    photo_size,
    read_mask,
    read_photo,
    same_ratio,
    unread_pictures,
    verify_photo,
    write_image,
)
from recon.io.images.resampling import remap, remap_prediction, resize_image, resize_map, resize_normals
from recon.io.images.video import VIDEO_ENDINGS, extract_frames, is_video

__all__ = [
    "PHOTO_ENDINGS",
    "VIDEO_ENDINGS",
    "check_ending",
    "exif_focal_px",
    "extract_frames",
    "find_mask",
    "find_photos",
    "is_video",
    "open_picture",
    "photo_size",
    "read_mask",
    "read_photo",
    "remap",
    "remap_prediction",
    "resize_image",
    "resize_map",
    "resize_normals",
    "same_ratio",
    "unread_pictures",
    "verify_photo",
    "write_image",
]
