// Package media owns where sound and picture come from and go to: clip files, supervised
// child pipelines, the recorder, and the fan-out of one source to several legs. RTSP cameras are
// in the package below it.
//
// A Box is a device's pair of source and sink; it opens the source with its first user
// and closes it with the last one. All exported methods may be called from any
// goroutine. Pipelines come from profiles and files on disk, never from the network.
package media
